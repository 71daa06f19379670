// Which virtualization extension a processor of the model has: the one place that knows both.
#pragma once

#include "cpu/virtualization.hpp"

#include <memory>

namespace exeunt {

class SvmInterconnect;

/// Makes the extension that the model offers answer for `cpu`: sets Cpu::virtualization and adds its MSRs.
/// Null where the model has neither. `first`: what the machine's first processor got; null for itself. Throws
/// ModelError.
std::unique_ptr<Virtualization> attach_extension(Cpu& cpu, SvmInterconnect& interconnect,
                                                 const Virtualization* first);

} // namespace exeunt
