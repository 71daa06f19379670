/* The report on the serial port, and the end of the run. */
#pragma once

#include "x86.h"

void console_open(void);
/* %s string, %d decimal u32, %x hexadecimal u64 with 0x; a number after % pads on the right. */
void print(const char* format, ...);
/* Ends the machine: isa-debug-exit at port F4H (native exit status 2 * value + 1), the shutdown port 8900H of
 * Bochs, and HLT where there is neither. */
_Noreturn void end_of_run(u32 value);
