# SPDX-License-Identifier: Apache-2.0
# What every C file is compiled with, and what a file's ISA suffix adds.

set(CMAKE_C_STANDARD 17)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_C_VISIBILITY_PRESET hidden)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

# Assertions stay on in Debug (the C tests) and go in every other build type.
# -ffp-contract=off: a fused multiply-add would round differently from the reference.
add_compile_definitions(_GNU_SOURCE)
add_compile_options(
  -O2 -g -fno-math-errno -ffp-contract=off
  -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla)
if(TEPI_WERROR)
  add_compile_options(-Werror)
endif()
if(TEPI_SANITIZE)
  add_compile_options(-fsanitize=${TEPI_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${TEPI_SANITIZE})
endif()

if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
  set(TEPI_ISAS avx2 avxvnni avx512vnni amxint8)
else()
  set(TEPI_ISAS "")
endif()
set(TEPI_ISA_SUFFIXES avx2 avxvnni avx512vnni amxint8)
set(TEPI_FLAGS_avx2 -mavx2 -mfma)
set(TEPI_FLAGS_avxvnni -mavx2 -mfma -mavxvnni)
set(TEPI_FLAGS_avx512vnni
    -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx2 -mfma)
set(TEPI_FLAGS_amxint8 ${TEPI_FLAGS_avx512vnni} -mamx-tile -mamx-int8)
set(TEPI_FLAGS_amxint8_emulated ${TEPI_FLAGS_avx512vnni})
