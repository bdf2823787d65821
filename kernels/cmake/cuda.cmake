# The CUDA half: librirf_kernels_cuda, and objects for the Python module. RIRF_CUDA is AUTO (where a
# CUDA compiler is found), ON, OFF, or HOST: the .cu drivers compiled as C++, in which a launch is a
# loop; that is how they are tested on machines without a GPU.
set(rirf_cuda_sources
  src/common/memory.cu
  src/common/workspace.cu
  src/chain/chain.cu
  src/depth/depth.cu
  src/draws/draws.cu
  src/fog/fog.cu
  src/frame/frame.cu
  src/noise/noise.cu
  src/rain/rain.cu
  src/severity/severity.cu
  src/shake/shake.cu)

set(rirf_cuda_built OFF)
if(RIRF_CUDA STREQUAL "HOST")
  set(rirf_cuda_built ON)
  set(rirf_cuda_listed "host")
  set_source_files_properties(${rirf_cuda_sources} PROPERTIES
    LANGUAGE CXX COMPILE_OPTIONS "-xc++;-Wall;-Wextra;-Wshadow;-Wconversion")
  message(STATUS "rirf: CUDA half as a host run, for tests only")
elseif(NOT RIRF_CUDA STREQUAL "OFF")
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    # Set before the language is enabled, which would choose for itself.
    set(CMAKE_CUDA_ARCHITECTURES OFF)
    enable_language(CUDA)
    set(rirf_cuda_built ON)
    # An older compiler is asked only for what it knows.
    execute_process(COMMAND "${CMAKE_CUDA_COMPILER}" --list-gpu-arch
                    OUTPUT_VARIABLE rirf_known COMMAND_ERROR_IS_FATAL ANY)
    set(rirf_cuda_listed "")
    set(rirf_cuda_flags "")
    foreach(architecture IN LISTS RIRF_CUDA_ARCHITECTURES)
      if(rirf_known MATCHES "compute_${architecture}[\r\n]")
        list(APPEND rirf_cuda_listed ${architecture})
        list(APPEND rirf_cuda_flags
          "SHELL:-gencode arch=compute_${architecture},code=sm_${architecture}")
      else()
        message(STATUS "rirf: this CUDA compiler does not know sm_${architecture}, left out")
      endif()
    endforeach()
    list(GET rirf_cuda_listed -1 rirf_newest)
    list(APPEND rirf_cuda_flags
      "SHELL:-gencode arch=compute_${rirf_newest},code=compute_${rirf_newest}")
    message(STATUS "rirf: CUDA half by ${CMAKE_CUDA_COMPILER}, for ${rirf_cuda_listed}")
  elseif(RIRF_CUDA STREQUAL "ON")
    message(FATAL_ERROR "RIRF_CUDA=ON, but no CUDA compiler was found: put nvcc on the PATH or set "
                        "CMAKE_CUDA_COMPILER, or build with RIRF_CUDA=AUTO")
  else()
    message(STATUS "rirf: no CUDA compiler found, CPU only")
  endif()
else()
  message(STATUS "rirf: CUDA half switched off, CPU only")
endif()

if(rirf_cuda_built)
  string(REPLACE ";" " " rirf_cuda_names "${rirf_cuda_listed}")
  add_library(rirf_cuda_objects OBJECT ${rirf_cuda_sources}
    src/common/calls.cpp src/common/error.cpp src/common/view.cpp)
  target_include_directories(rirf_cuda_objects PRIVATE src include)
  target_compile_definitions(rirf_cuda_objects PRIVATE
    RIRF_CUDA_ARCHITECTURES="${rirf_cuda_names}")
  if(RIRF_CUDA STREQUAL "HOST")
    target_compile_definitions(rirf_cuda_objects PRIVATE RIRF_HOST_RUN)
  else()
    set_target_properties(rirf_cuda_objects PROPERTIES
      CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON CUDA_VISIBILITY_PRESET hidden
      CUDA_RUNTIME_LIBRARY Static)
    target_compile_options(rirf_cuda_objects PRIVATE
      $<$<COMPILE_LANGUAGE:CUDA>:${rirf_cuda_flags} -Xcompiler=-Wall,-Wextra>)
  endif()
  add_library(rirf_kernels_cuda SHARED $<TARGET_OBJECTS:rirf_cuda_objects>)
  target_include_directories(rirf_kernels_cuda INTERFACE
    $<BUILD_INTERFACE:${CMAKE_CURRENT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:include>)
  set_target_properties(rirf_kernels_cuda PROPERTIES
    EXPORT_NAME kernels_cuda VERSION ${PROJECT_VERSION} SOVERSION 1)
  if(NOT RIRF_CUDA STREQUAL "HOST")
    # The runtime library is linked in, so that the module loads where there is no CUDA at all.
    set_target_properties(rirf_kernels_cuda PROPERTIES
      LINKER_LANGUAGE CUDA CUDA_RUNTIME_LIBRARY Static)
  endif()
endif()
