// Permission to use I/O ports, for IN, OUT, INS and OUTS.
#pragma once

#include "cpu/cpu.hpp"

namespace exeunt {

/// SDM 1 18.5 "Protected-Mode I/O": #GP(0) where neither IOPL nor the TSS's I/O permission bitmap allows it.
Result<void> check_io(Cpu& cpu, u16 port, unsigned bytes);

/// The bit for INT `vector` in the TSS's software interrupt redirection bitmap: 1 sends it to the
/// protected-mode handler (SDM 3B 20.3.3 "Class 3-Software Interrupt Handling in Virtual-8086 Mode").
Result<bool> redirection_bit(Cpu& cpu, u8 vector);

} // namespace exeunt
