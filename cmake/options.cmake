# exeunt_options: warnings, sanitizers and what the project as a whole is compiled with.
add_library(exeunt_options INTERFACE)

target_compile_options(exeunt_options INTERFACE -Wall -Wextra -Wpedantic -Wconversion -Wshadow)
if(EXEUNT_WERROR)
    target_compile_options(exeunt_options INTERFACE -Werror)
endif()
# Same inputs, same bits: no compiler may fuse a multiplication and an addition on its own.
target_compile_options(exeunt_options INTERFACE -ffp-contract=off)
# The state hash and error messages must not depend on where the tree was checked out.
target_compile_options(exeunt_options INTERFACE -fmacro-prefix-map=${PROJECT_SOURCE_DIR}/=)

if(EXEUNT_THREADED)
    target_compile_definitions(exeunt_options INTERFACE EXEUNT_THREADED=1)
endif()

if(EXEUNT_SANITIZE)
    add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
    add_link_options(-fsanitize=address,undefined)
endif()
if(EXEUNT_FUZZ)
    if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
        message(FATAL_ERROR "EXEUNT_FUZZ needs Clang (Debian package clang): use the preset 'fuzz'")
    endif()
    add_compile_options(-fsanitize=fuzzer-no-link,address -fno-omit-frame-pointer)
    add_link_options(-fsanitize=address)
endif()

# Link-time optimisation. GCC keeps machine code beside the intermediate code, so that the executable
# is optimised as a whole while each test still links in a moment.
set(EXEUNT_LTO_COMPILE "")
set(EXEUNT_LTO_LINK "")
if(EXEUNT_LTO)
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
        set(EXEUNT_LTO_COMPILE -flto=auto -ffat-lto-objects)
        set(EXEUNT_LTO_LINK -flto=auto -O2)
        add_link_options($<$<NOT:$<STREQUAL:$<TARGET_PROPERTY:NAME>,exeunt>>:-fno-lto>)
    else()
        set(EXEUNT_LTO_COMPILE -flto=thin)
        add_link_options(-fuse-ld=lld)
        set(EXEUNT_LTO_LINK -flto=thin)
    endif()
endif()

# The engine's handlers end in a call of the next handler; it must become a jump in every one of them.
function(exeunt_tune_dispatch target)
    get_target_property(type ${target} TYPE)
    if(type STREQUAL "INTERFACE_LIBRARY")
        return()
    endif()
    target_compile_options(${target} PRIVATE -O2 -fno-plt -foptimize-sibling-calls -fno-stack-protector
                           -fno-tree-slp-vectorize)
    if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|i.86")
        target_compile_options(${target} PRIVATE -fcf-protection=none)
    endif()
endfunction()
