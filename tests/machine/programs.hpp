// Guests of a few instructions, in 32-bit protected mode, for tests of the machine around the processor. Each
// ends the run in a way of its own. Disassembly stands beside the bytes.
#pragma once

#include "base/types.hpp"

#include <vector>

namespace exeunt::test::programs {

using Bytes = std::vector<u8>;

inline Bytes operator+(Bytes first, const Bytes& second) {
    first.insert(first.end(), second.begin(), second.end());
    return first;
}

inline const Bytes wait_for_ever{0xFA, 0xF4, 0xEB, 0xFC};   // cli; hlt; jmp -4
inline const Bytes spin{0xEB, 0xFE};                        // jmp -2
inline const Bytes breakpoint{0xCC};                        // int3: no IDT, so a triple fault
inline const Bytes close_a20{0xB0, 0x00, 0xE6, 0x92};       // mov al, 0; out 0x92, al

/// isa-debug-exit.
inline Bytes exit_with(u8 value) { return Bytes{0xB0, value, 0xE6, 0xF4}; }  // mov al, value; out 0xf4, al

/// ACPI S5: mov dx, 0x604; mov ax, 0x2000; out dx, ax.
inline const Bytes power_off{0x66, 0xBA, 0x04, 0x06, 0x66, 0xB8, 0x00, 0x20, 0x66, 0xEF};

/// A character on the serial line: mov dx, 0x3f8; mov al, c; out dx, al.
inline Bytes print(char c) { return {0x66, 0xBA, 0xF8, 0x03, 0xB0, static_cast<u8>(c), 0xEE}; }

/// Waits for a character on the serial line and sends it back:
/// mov dx, 0x3fd; in al, dx; test al, 1; jz -5; mov dx, 0x3f8; in al, dx; out dx, al.
inline const Bytes echo{0x66, 0xBA, 0xFD, 0x03, 0xEC, 0xA8, 0x01, 0x74, 0xFB, 0x66, 0xBA, 0xF8, 0x03, 0xEC, 0xEE};

/// Counts its starts at 8000H, where RAM keeps them, and resets the machine until there were three:
/// inc dword [0x8000]; cmp dword [0x8000], 3; jae +10; mov dx, 0xcf9; mov al, 6; out dx, al; jmp -2.
inline const Bytes start_three_times{0xFF, 0x05, 0x00, 0x80, 0x00, 0x00, 0x83, 0x3D, 0x00, 0x80, 0x00,
                                     0x00, 0x03, 0x73, 0x09, 0x66, 0xBA, 0xF9, 0x0C, 0xB0, 0x06, 0xEE,
                                     0xEB, 0xFE};

}  // namespace exeunt::test::programs
