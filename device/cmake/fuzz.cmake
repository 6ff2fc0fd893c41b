# SPDX-License-Identifier: Apache-2.0
# Every fuzz/*.c is one target, fuzz_<name>. With TEPI_FUZZ (clang) libFuzzer drives it; else
# fuzz/smoke.c does, a fixed number of mutations of its seed, and ctest runs that.

set(fuzz ${CMAKE_CURRENT_SOURCE_DIR}/../fuzz)
# Rounds in ctest, where the runner's own number would take long: this one makes a card each time.
set(rounds_card_submission 1500)
file(GLOB fuzz_sources CONFIGURE_DEPENDS ${fuzz}/*.c)
list(FILTER fuzz_sources EXCLUDE REGEX "/smoke\\.c$")

foreach(source ${fuzz_sources})
  get_filename_component(name ${source} NAME_WE)
  set(rounds ${rounds_${name}})
  set(name fuzz_${name})
  add_executable(${name} ${source} ${objects})
  target_include_directories(${name} PRIVATE ${fuzz} ${tests})
  tepi_sees(${name} abi driver endpoint card kernels binding)
  target_link_libraries(${name} PRIVATE ${libraries} Threads::Threads m)
  if(TEPI_FUZZ)
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  else()
    target_sources(${name} PRIVATE ${fuzz}/smoke.c)
    add_test(NAME ${name} COMMAND ${name} ${rounds})
    set_tests_properties(${name} PROPERTIES TIMEOUT 120)
  endif()
endforeach()
