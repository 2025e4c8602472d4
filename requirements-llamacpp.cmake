# Included by llama-cpp-python's build: leaves out llama.cpp's chat and command-line library, a third of the build.
set(LLAMA_BUILD_COMMON OFF)
