# SPDX-License-Identifier: Apache-2.0
# device.binding._card: cffi writes its C at build time from the cdef and the glue's header.

find_package(Python REQUIRED COMPONENTS Interpreter Development.Module)

set(binding ${CMAKE_CURRENT_SOURCE_DIR}/binding)
file(GLOB glue CONFIGURE_DEPENDS ${binding}/*.c)
file(GLOB binding_headers CONFIGURE_DEPENDS ${binding}/*.h)
get_property(libraries GLOBAL PROPERTY TEPI_LIBRARIES)
if(NOT EXISTS ${binding}/card_cdef.h OR NOT glue)
  message(WARNING "device/binding has no cdef yet: building without device.binding._card")
  install(CODE "")
  return()
endif()

set(prelude ${CMAKE_CURRENT_BINARY_DIR}/card_prelude.c)
set(generated ${CMAKE_CURRENT_BINARY_DIR}/_card.c)
file(CONFIGURE OUTPUT ${prelude} CONTENT "#include \"binding/card_glue.h\"\n")
add_custom_command(
  OUTPUT ${generated}
  COMMAND Python::Interpreter -m cffi.gen_src read-sources device.binding._card
          ${binding}/card_cdef.h ${prelude} ${generated}
  DEPENDS ${binding}/card_cdef.h ${prelude}
  COMMENT "cffi: device.binding._card"
  VERBATIM)
set_source_files_properties(${generated} PROPERTIES OBJECT_DEPENDS "${binding_headers}")

add_library(tepi_glue OBJECT ${glue})
tepi_sees(tepi_glue abi driver endpoint card binding)
python_add_library(_card MODULE WITH_SOABI ${generated} $<TARGET_OBJECTS:tepi_glue>)
tepi_sees(_card abi driver endpoint card binding)
# cffi's output is not ours to make free of warnings.
target_compile_options(_card PRIVATE -w)
target_link_libraries(_card PRIVATE ${libraries})
install(TARGETS _card LIBRARY DESTINATION device/binding)
