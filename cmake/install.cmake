# cmake --install: the program, the library part for find_package(Trireme), templates and completion.
# The program finds LibTorch in ../lib beside itself, so that the tree can be moved (with
# `cmake --install build --component libtorch`), else where it was built with it.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set_target_properties(trireme PROPERTIES INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR};${LibTorch_ROOT}/lib")
install(TARGETS trireme)

set(_package ${CMAKE_INSTALL_LIBDIR}/cmake/Trireme)
foreach(_library core dist data models optim reduce)
  set_target_properties(trireme_${_library} PROPERTIES EXPORT_NAME ${_library})
  target_include_directories(trireme_${_library} INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/trireme>)
  target_compile_features(trireme_${_library} INTERFACE cxx_std_20)
  install(TARGETS trireme_${_library} EXPORT TriremeTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
endforeach()
install(EXPORT TriremeTargets NAMESPACE Trireme:: DESTINATION ${_package})
foreach(_folder core dist data trainer/models trainer/optim trainer/reduce)
  install(DIRECTORY ${_folder}/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/trireme/${_folder} FILES_MATCHING PATTERN "*.h")
endforeach()
install(FILES trainer/config.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/trireme/trainer)
file(WRITE ${CMAKE_BINARY_DIR}/TriremeBuild.cmake "set(TRIREME_BUILT_WITH_TORCH \"${LibTorch_ROOT}\")\n")
write_basic_package_version_file(${CMAKE_BINARY_DIR}/TriremeConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES cmake/TriremeConfig.cmake cmake/FindLibTorch.cmake ${CMAKE_BINARY_DIR}/TriremeBuild.cmake
  ${CMAKE_BINARY_DIR}/TriremeConfigVersion.cmake DESTINATION ${_package})

install(DIRECTORY slurm DESTINATION ${CMAKE_INSTALL_DATADIR}/trireme)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/trireme)
foreach(_shell_and_file "bash bash-completion/completions/trireme" "zsh zsh/site-functions/_trireme"
    "fish fish/vendor_completions.d/trireme.fish")
  separate_arguments(_words UNIX_COMMAND "${_shell_and_file}")
  list(GET _words 0 _shell)
  list(GET _words 1 _file)
  set(_made ${CMAKE_BINARY_DIR}/completion/${_shell})
  install(CODE "execute_process(COMMAND \"$<TARGET_FILE:trireme>\" completion ${_shell} OUTPUT_FILE \"${_made}\" COMMAND_ERROR_IS_FATAL ANY)")
  file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/completion)
  get_filename_component(_folder ${_file} DIRECTORY)
  get_filename_component(_name ${_file} NAME)
  install(FILES ${_made} DESTINATION ${CMAKE_INSTALL_DATADIR}/${_folder} RENAME ${_name})
endforeach()

# LibTorch beside the program, for images and other machines; for CUDA with NVIDIA's libraries. A program
# for CPUs takes of a CUDA build what libtorch_cpu.so needs.
if(LibTorch_CUDA)
  set(_left_out "libtorch_python[^/]*$")
  set(_of_nvidia "\\.so[^/]*$")
else()
  set(_left_out "(libtorch_python|libtorch\\.so|_cuda|nvrtc|nvshmem)[^/]*$")
  set(_of_nvidia "lib(cudart|cupti)\\.so[^/]*$")
endif()
foreach(_folder ${LibTorch_ROOT}/lib ${LibTorch_ROOT}/../torch.libs)
  if(EXISTS ${_folder})
    install(DIRECTORY ${_folder}/ DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT libtorch EXCLUDE_FROM_ALL
      FILES_MATCHING PATTERN "*.so*" REGEX "${_left_out}" EXCLUDE)
  endif()
endforeach()
file(GLOB _folders ${LibTorch_ROOT}/../nvidia/*/lib)
foreach(_folder ${_folders})
  install(DIRECTORY ${_folder}/ DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT libtorch EXCLUDE_FROM_ALL
    FILES_MATCHING REGEX "${_of_nvidia}")
endforeach()
