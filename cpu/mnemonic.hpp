// The numbers of mnemonics (Insn::mnemonic), for folders that have instruction rows of their own.
#pragma once

#include <Zydis/Mnemonic.h>
