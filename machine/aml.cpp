#include "machine/aml.hpp"

#include "base/bits.hpp"
#include "base/ensure.hpp"

namespace exeunt::aml {

namespace {

constexpr u8 zero_op = 0x00, one_op = 0x01, name_op = 0x08, byte_prefix = 0x0A, word_prefix = 0x0B,
             dword_prefix = 0x0C, string_prefix = 0x0D, qword_prefix = 0x0E, scope_op = 0x10, buffer_op = 0x11,
             package_op = 0x12, method_op = 0x14, ext_op = 0x5B, argument_op = 0x68, store_op = 0x70,
             device_op = 0x82, if_op = 0xA0, return_op = 0xA4;

void number(Bytes& out, u64 value, unsigned bytes) {
    for (unsigned i = 0; i < bytes; ++i) out.push_back(static_cast<u8>(value >> (8 * i)));
}

void append(Bytes& out, const Bytes& more) { out.insert(out.end(), more.begin(), more.end()); }

/// 20.2.4 "Package Length Encoding": the length counts its own bytes.
Bytes with_length(const Bytes& body) {
    const std::size_t size = body.size();
    Bytes out;
    if (size + 1 < 0x40) {
        out.push_back(static_cast<u8>(size + 1));
    } else {
        const unsigned more = size + 2 < 0x1000 ? 1 : size + 3 < 0x10'0000 ? 2 : 3;
        const std::size_t length = size + 1 + more;
        out.push_back(static_cast<u8>((more << 6) | (length & 0xF)));
        number(out, length >> 4, more);
    }
    append(out, body);
    return out;
}

/// 20.2.2 "Name Objects Encoding", without parents and with one segment at most.
Bytes name_string(std::string_view path) {
    Bytes out;
    if (!path.empty() && path.front() == '\\') {
        out.push_back('\\');
        path.remove_prefix(1);
    }
    ENSURE(path.size() <= 4);
    if (path.empty()) {
        out.push_back(0);
        return out;
    }
    for (const char c : path) out.push_back(static_cast<u8>(c));
    for (std::size_t i = path.size(); i < 4; ++i) out.push_back('_');
    return out;
}

Bytes named(std::initializer_list<u8> op, std::string_view path, const Bytes& body) {
    Bytes out(op);
    append(out, with_length(join({name_string(path), body})));
    return out;
}

/// 6.4.3.5.2 "DWord Address Space Descriptor" and 6.4.3.5.3 "Word Address Space Descriptor", as ranges that the
/// device produces (a bridge), decoded positively, with both ends fixed.
Bytes address_space(unsigned field_bytes, u8 type, u8 type_flags, u64 first, u64 last) {
    Bytes out{static_cast<u8>(field_bytes == 4 ? 0x87 : 0x88)};
    number(out, 3 + 5 * field_bytes, 2);
    number(out, type, 1);
    number(out, 0x0C, 1);
    number(out, type_flags, 1);
    number(out, 0, field_bytes);  // granularity
    number(out, first, field_bytes);
    number(out, last, field_bytes);
    number(out, 0, field_bytes);  // translation
    number(out, last - first + 1, field_bytes);
    return out;
}

}  // namespace

Bytes join(std::initializer_list<Bytes> parts) {
    Bytes out;
    for (const Bytes& part : parts) append(out, part);
    return out;
}

Bytes integer(u64 value) {
    if (value <= 1) return {value == 0 ? zero_op : one_op};
    const unsigned bytes = value <= 0xFF ? 1 : value <= 0xFFFF ? 2 : value <= 0xFFFF'FFFF ? 4 : 8;
    Bytes out{bytes == 1 ? byte_prefix : bytes == 2 ? word_prefix : bytes == 4 ? dword_prefix : qword_prefix};
    number(out, value, bytes);
    return out;
}

Bytes string(std::string_view text) {
    Bytes out{string_prefix};
    for (const char c : text) out.push_back(static_cast<u8>(c));
    out.push_back(0);
    return out;
}

Bytes buffer(std::span<const u8> data) {
    Bytes body = integer(data.size());
    body.insert(body.end(), data.begin(), data.end());
    return join({{buffer_op}, with_length(body)});
}

Bytes package(std::span<const Bytes> elements) {
    ENSURE(elements.size() <= 255);
    Bytes body{static_cast<u8>(elements.size())};
    for (const Bytes& element : elements) append(body, element);
    return join({{package_op}, with_length(body)});
}

Bytes eisa_id(std::string_view text) {
    ENSURE(text.size() == 7);
    const auto letter = [&](std::size_t i) { return static_cast<u32>(text[i] - 'A' + 1) & 0x1F; };
    const auto digit = [&](std::size_t i) {
        return static_cast<u32>(text[i] <= '9' ? text[i] - '0' : text[i] - 'A' + 10) & 0xF;
    };
    // 19.3.4 "ASL Macros", EISAID: three letters of five bits and four digits, most significant byte first.
    const u32 big_endian = (letter(0) << 26) | (letter(1) << 21) | (letter(2) << 16) | (digit(3) << 12) |
                           (digit(4) << 8) | (digit(5) << 4) | digit(6);
    Bytes out{dword_prefix};
    for (unsigned i = 0; i < 4; ++i) out.push_back(static_cast<u8>(big_endian >> (24 - 8 * i)));
    return out;
}

Bytes name(std::string_view path, const Bytes& value) { return join({{name_op}, name_string(path), value}); }
Bytes scope(std::string_view path, const Bytes& body) { return named({scope_op}, path, body); }
Bytes device(std::string_view path, const Bytes& body) { return named({ext_op, device_op}, path, body); }

Bytes method(std::string_view path, unsigned arguments, const Bytes& body) {
    return named({method_op}, path, join({{static_cast<u8>(arguments)}, body}));
}

Bytes reference(std::string_view path) { return name_string(path); }
Bytes argument(unsigned n) { return {static_cast<u8>(argument_op + n)}; }
Bytes store(const Bytes& value, const Bytes& target) { return join({{store_op}, value, target}); }
Bytes if_true(const Bytes& predicate, const Bytes& body) {
    return join({{if_op}, with_length(join({predicate, body}))});
}
Bytes return_value(const Bytes& value) { return join({{return_op}, value}); }

Bytes resource_template(std::initializer_list<Bytes> descriptors) {
    Bytes data = join(descriptors);
    append(data, {0x79, 0});  // end tag; a checksum of 0 is not checked
    return buffer(data);
}

Bytes io_ports(u16 first, u8 count) {
    Bytes out{0x47, 1};  // 16-bit decode
    number(out, first, 2);
    number(out, first, 2);
    out.push_back(1);
    out.push_back(count);
    return out;
}

Bytes irq(unsigned irq) {
    Bytes out{0x22};
    number(out, u64{1} << irq, 2);
    return out;
}

Bytes memory32_fixed(u32 start, u32 bytes, bool writable) {
    Bytes out{0x86, 9, 0, static_cast<u8>(writable ? 1 : 0)};
    number(out, start, 4);
    number(out, bytes, 4);
    return out;
}

Bytes bus_numbers(u16 first, u16 last) { return address_space(2, 2, 0, first, last); }
Bytes io_window(u16 first, u16 last) { return address_space(2, 1, 3, first, last); }
Bytes memory_window(u32 first, u32 last) { return address_space(4, 0, 1, first, last); }

}  // namespace exeunt::aml
