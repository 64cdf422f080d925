# trireme_heed_directives(TARGET source...): a source that has pragmas or macros is compiled alone where others are
# compiled together (unity builds), so that they stay its own; one that sets macros before its first #include does
# without a precompiled header too, which would have come before them.
function(trireme_heed_directives target)
  get_target_property(_folder ${target} SOURCE_DIR)
  foreach(_source ${ARGN})
    cmake_path(ABSOLUTE_PATH _source BASE_DIRECTORY ${_folder} OUTPUT_VARIABLE _path)
    file(STRINGS ${_path} _directives REGEX "^#(pragma|define|undef|include)")
    if(_directives MATCHES "#(pragma|define|undef)")
      set_source_files_properties(${_source} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
    endif()
    if(_directives MATCHES "^#(define|undef)")
      set_source_files_properties(${_source} PROPERTIES SKIP_PRECOMPILE_HEADERS ON)
    endif()
  endforeach()
endfunction()

# trireme_add_library(NAME source...): a static library.
function(trireme_add_library name)
  add_library(${name} STATIC ${ARGN})
  trireme_heed_directives(${name} ${ARGN})
endfunction()
