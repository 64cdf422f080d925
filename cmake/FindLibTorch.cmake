# LibTorch as imported targets made by hand, for the pip wheel (CPU or CUDA), an unpacked archive or a
# cluster module. The wheel's own TorchConfig.cmake wants a full CUDA toolkit, which a machine without
# GPU has no use for.
#
# Looks in TRIREME_TORCH_ROOT, Torch_DIR, CMAKE_PREFIX_PATH and the virtual environment of ./bootstrap.
# Defines: LibTorch_FOUND, LibTorch_CUDA, target trireme::torch and, with CUDA, target trireme::nccl (CUDA
# runtime + NCCL). LibTorch_CUDA: a CUDA build with all that compiling for it takes. PyPI's wheel for x86-64
# is a CUDA build that comes without some of the runtime's headers; of such a one the CPU's part is used.
set(_torch_hints ${TRIREME_TORCH_ROOT} $ENV{TRIREME_TORCH_ROOT})
if(Torch_DIR)
  list(APPEND _torch_hints ${Torch_DIR}/../../..)
endif()
list(APPEND _torch_hints ${CMAKE_PREFIX_PATH})
file(GLOB _venv_torch ${CMAKE_SOURCE_DIR}/.venv/lib/python3*/site-packages/torch)
list(APPEND _torch_hints ${_venv_torch} ${_trireme_torch_fallback})

find_path(LibTorch_INCLUDE_DIR torch/csrc/api/include/torch/torch.h
  HINTS ${_torch_hints} PATH_SUFFIXES include torch/include NO_DEFAULT_PATH)
if(LibTorch_INCLUDE_DIR)
  get_filename_component(LibTorch_ROOT ${LibTorch_INCLUDE_DIR} DIRECTORY)
endif()
find_library(LibTorch_CPU_LIBRARY torch_cpu HINTS ${LibTorch_ROOT}/lib NO_DEFAULT_PATH)
find_library(LibTorch_C10_LIBRARY c10 HINTS ${LibTorch_ROOT}/lib NO_DEFAULT_PATH)
find_library(LibTorch_CUDA_LIBRARY torch_cuda HINTS ${LibTorch_ROOT}/lib NO_DEFAULT_PATH)
find_library(LibTorch_C10_CUDA_LIBRARY c10_cuda HINTS ${LibTorch_ROOT}/lib NO_DEFAULT_PATH)
set(LibTorch_VERSION "")
if(EXISTS ${LibTorch_INCLUDE_DIR}/torch/headeronly/version.h)
  file(STRINGS ${LibTorch_INCLUDE_DIR}/torch/headeronly/version.h _lines
    REGEX "define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
  string(REGEX REPLACE ".*MAJOR ([0-9]+).*MINOR ([0-9]+).*PATCH ([0-9]+).*" "\\1.\\2.\\3"
    LibTorch_VERSION "${_lines}")
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(LibTorch
  REQUIRED_VARS LibTorch_CPU_LIBRARY LibTorch_C10_LIBRARY LibTorch_INCLUDE_DIR
  VERSION_VAR LibTorch_VERSION
  REASON_FAILURE_MESSAGE "Run ./bootstrap, or give TRIREME_TORCH_ROOT (the folder with include/ and lib/).")

if(LibTorch_FOUND AND NOT TARGET trireme::torch)
  add_library(trireme::torch INTERFACE IMPORTED GLOBAL)
  # -idirafter: the wheel bundles its own fmt, which must not hide the system's from spdlog.
  target_compile_options(trireme::torch INTERFACE
    "SHELL:-idirafter ${LibTorch_INCLUDE_DIR}"
    "SHELL:-idirafter ${LibTorch_INCLUDE_DIR}/torch/csrc/api/include")
  target_link_options(trireme::torch INTERFACE "LINKER:-rpath,${LibTorch_ROOT}/lib")
  target_link_libraries(trireme::torch INTERFACE
    -Wl,--no-as-needed ${LibTorch_CPU_LIBRARY} ${LibTorch_C10_LIBRARY})
  set(LibTorch_CUDA OFF)
  if(LibTorch_CUDA_LIBRARY AND LibTorch_C10_CUDA_LIBRARY)
    set(LibTorch_CUDA ON)
    get_filename_component(_site ${LibTorch_ROOT} DIRECTORY)
    # A folder with crt/ has the runtime's other headers too; the reverse does not hold for wheels.
    find_path(TRIREME_CUDA_INCLUDE crt/host_defines.h
      HINTS $ENV{CUDA_HOME}/include /usr/local/cuda/include ${_site}/nvidia/cu13/include)
    find_path(TRIREME_NCCL_INCLUDE nccl.h HINTS ${_site}/nvidia/nccl/include $ENV{NCCL_HOME}/include)
    find_library(TRIREME_CUDART NAMES cudart libcudart.so.13 libcudart.so.12
      HINTS ${_site}/nvidia/cu13/lib $ENV{CUDA_HOME}/lib64 /usr/local/cuda/lib64)
    find_library(TRIREME_NCCL NAMES nccl libnccl.so.2
      HINTS ${_site}/nvidia/nccl/lib $ENV{NCCL_HOME}/lib)
    foreach(_v TRIREME_CUDA_INCLUDE TRIREME_NCCL_INCLUDE TRIREME_CUDART TRIREME_NCCL)
      if(NOT ${_v})
        set(LibTorch_CUDA OFF)
        message(STATUS "This LibTorch is a CUDA build, but ${_v} was not found (set it with -D${_v}=…): building for CPUs")
      endif()
    endforeach()
  endif()
  if(LibTorch_CUDA)
    get_filename_component(_cudart_dir ${TRIREME_CUDART} DIRECTORY)
    get_filename_component(_nccl_dir ${TRIREME_NCCL} DIRECTORY)
    add_library(trireme::nccl INTERFACE IMPORTED GLOBAL)
    target_include_directories(trireme::nccl SYSTEM INTERFACE ${TRIREME_CUDA_INCLUDE} ${TRIREME_NCCL_INCLUDE})
    target_link_libraries(trireme::nccl INTERFACE ${TRIREME_CUDART} ${TRIREME_NCCL})
    target_link_options(trireme::nccl INTERFACE "LINKER:-rpath,${_cudart_dir}:${_nccl_dir}")
    target_compile_definitions(trireme::nccl INTERFACE TRIREME_WITH_CUDA=1)
    target_link_libraries(trireme::torch INTERFACE ${LibTorch_CUDA_LIBRARY} ${LibTorch_C10_CUDA_LIBRARY} trireme::nccl)
  endif()
endif()
