# SPDX-License-Identifier: Apache-2.0
# Rooms as static libraries. A room includes another as "abi/registers.h"; the build tree
# holds one folder per room with a link to it, so a target sees only what SEES names.

set(TEPI_ROOM_DIR ${CMAKE_BINARY_DIR}/rooms)

function(tepi_sees target)
  foreach(room ${ARGN})
    file(MAKE_DIRECTORY ${TEPI_ROOM_DIR}/${room})
    file(CREATE_LINK ${CMAKE_CURRENT_SOURCE_DIR}/${room} ${TEPI_ROOM_DIR}/${room}/${room} SYMBOLIC)
    target_include_directories(${target} PRIVATE ${TEPI_ROOM_DIR}/${room})
  endforeach()
endfunction()

function(tepi_room name)
  cmake_parse_arguments(ROOM "" "" "SEES" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*.c)
  if(NOT sources)
    return()
  endif()
  add_library(tepi_${name} STATIC ${sources})
  target_link_libraries(tepi_${name} PUBLIC Threads::Threads m)
  tepi_sees(tepi_${name} ${ROOM_SEES})
  set_property(GLOBAL APPEND PROPERTY TEPI_LIBRARIES tepi_${name})
endfunction()

# One object library per ISA suffix, since the flags differ; all of them in one archive, and
# TEPI_HAVE_<ISA> is defined for each whose set-<isa>.c is there.
# Every *-amxint8.c is compiled once more with TEPI_AMX_EMULATED for the C tests, so that a
# machine without AMX still runs that code.
function(tepi_kernels name)
  cmake_parse_arguments(ROOM "" "" "SEES" ${ARGN})
  file(GLOB_RECURSE all CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*.c)
  set(baseline ${all})
  foreach(isa ${TEPI_ISA_SUFFIXES})
    list(FILTER baseline EXCLUDE REGEX "-${isa}\\.c$")
  endforeach()
  if(NOT baseline)
    return()
  endif()
  add_library(tepi_${name} STATIC ${baseline})
  # The scalar kernels are what other machines run: gcc makes use of their vectors from -O3 on.
  target_compile_options(tepi_${name} PRIVATE -O3)
  target_link_libraries(tepi_${name} PUBLIC m)
  tepi_sees(tepi_${name} ${ROOM_SEES})
  foreach(isa ${TEPI_ISAS})
    set(sources ${all})
    list(FILTER sources INCLUDE REGEX "-${isa}\\.c$")
    if(sources)
      tepi_isa_objects(tepi_${name}_${isa} ${isa} "${sources}" "${ROOM_SEES}")
      target_sources(tepi_${name} PRIVATE $<TARGET_OBJECTS:tepi_${name}_${isa}>)
      string(TOUPPER ${isa} upper)
      if(sources MATCHES "/set-${isa}\\.c")
        target_compile_definitions(tepi_${name} PUBLIC TEPI_HAVE_${upper})
      endif()
    endif()
    if(sources AND isa STREQUAL "amxint8" AND TEPI_TESTS)
      tepi_isa_objects(tepi_amx_emulated amxint8_emulated "${sources}" "${ROOM_SEES}")
      target_compile_definitions(tepi_amx_emulated PRIVATE TEPI_AMX_EMULATED)
    endif()
  endforeach()
  set_property(GLOBAL APPEND PROPERTY TEPI_LIBRARIES tepi_${name})
endfunction()

function(tepi_isa_objects target isa sources sees)
  add_library(${target} OBJECT ${sources})
  target_compile_options(${target} PRIVATE ${TEPI_FLAGS_${isa}})
  tepi_sees(${target} ${sees})
endfunction()
