# Debian's cross compiler against Debian's multiarch libraries; qemu-user runs what it builds.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)
set(CMAKE_C_LIBRARY_ARCHITECTURE aarch64-linux-gnu)
set(CMAKE_CXX_LIBRARY_ARCHITECTURE aarch64-linux-gnu)
set(EXEUNT_DEBIAN_ARCHITECTURE arm64)
# Only the target's libraries: without this the native ones in /usr/lib/x86_64-linux-gnu could be found.
set(CMAKE_IGNORE_PREFIX_PATH /usr/local)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64-static)
