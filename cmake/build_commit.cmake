# Writes build_commit.h anew where the commit, or whether the tree differs from it, has changed:
#   cmake -DSOURCE=… -DOUTPUT=… -DBUILD_TYPE=… -DCOMPILER=… -P build_commit.cmake
find_program(_git git)
set(_commit "unknown")
if(_git)
  execute_process(COMMAND ${_git} -C ${SOURCE} describe --always --dirty --abbrev=12
    OUTPUT_VARIABLE _described OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE _result ERROR_QUIET)
  if(_result EQUAL 0)
    set(_commit "${_described}")
  endif()
endif()
set(_text "#pragma once\n#define TRIREME_COMMIT \"${_commit}\"\n#define TRIREME_BUILD_TYPE \"${BUILD_TYPE}\"\n#define TRIREME_COMPILER \"${COMPILER}\"\n")
set(_before "")
if(EXISTS ${OUTPUT})
  file(READ ${OUTPUT} _before)
endif()
if(NOT _text STREQUAL _before)
  file(WRITE ${OUTPUT} "${_text}")
endif()
