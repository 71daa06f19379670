// A small writer of ACPI Machine Language: just the terms that our DSDT needs.
// ACPI 6.4 ch. 20 "ACPI Machine Language (AML) Specification"; 6.4 "Resource Data Types for ACPI".
#pragma once

#include "base/types.hpp"

#include <initializer_list>
#include <span>
#include <string_view>
#include <vector>

namespace exeunt::aml {

using Bytes = std::vector<u8>;

/// One after the other.
Bytes join(std::initializer_list<Bytes> parts);

// Data objects.
Bytes integer(u64 value);
Bytes string(std::string_view text);
Bytes buffer(std::span<const u8> data);
Bytes package(std::span<const Bytes> elements);
/// A compressed EISA identifier such as "PNP0A08", as an integer.
Bytes eisa_id(std::string_view text);

// Named objects. Paths are single segments of four characters, or "\\_SB" and the like.
Bytes name(std::string_view path, const Bytes& value);
Bytes scope(std::string_view path, const Bytes& body);
Bytes device(std::string_view path, const Bytes& body);

// Methods.
Bytes method(std::string_view path, unsigned arguments, const Bytes& body);
/// A named object, or argument `n`, as a term.
Bytes reference(std::string_view path);
Bytes argument(unsigned n);
Bytes store(const Bytes& value, const Bytes& target);
Bytes if_true(const Bytes& predicate, const Bytes& body);
Bytes return_value(const Bytes& value);

// Resource templates.
Bytes resource_template(std::initializer_list<Bytes> descriptors);
Bytes io_ports(u16 first, u8 count);
/// Edge-triggered, active high; `irq` is an ISA interrupt.
Bytes irq(unsigned irq);
Bytes memory32_fixed(u32 start, u32 bytes, bool writable);
Bytes bus_numbers(u16 first, u16 last);
Bytes io_window(u16 first, u16 last);
Bytes memory_window(u32 first, u32 last);

}  // namespace exeunt::aml
