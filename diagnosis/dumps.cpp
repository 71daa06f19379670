#include "diagnosis/dumps.hpp"

#include "base/bad_input.hpp"
#include "diagnosis/fields.hpp"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace exeunt {

using nlohmann::json;
using F = VmcsField;

namespace {

enum class Part : u8 { none, guest, host, control };

struct VmcsRow {
    Part part;
    std::string_view line, key;
    F field;
};
constexpr VmcsRow vmcs_rows[] = {
#define VMCS(part, line, key, field) {Part::part, line, key, F::field},
#define VMCB(key, offset, bytes, base)
#include "diagnosis/dump_rows.inc"
};

struct VmcbRow {
    std::string_view key;
    u16 offset;
    u8 bytes, base;
};
constexpr VmcbRow vmcb_rows[] = {
#define VMCS(part, line, key, field)
#define VMCB(key, offset, bytes, base) {key, offset, bytes, base},
#include "diagnosis/dump_rows.inc"
};

constexpr std::string_view segment_names[] = {"ES", "CS", "SS", "DS", "FS", "GS", "LDTR", "TR"};
/// Where the VMCB has ES to GS, LDTR and TR, then GDTR and IDTR.
constexpr u16 vmcb_segments[] = {0x400, 0x410, 0x420, 0x430, 0x440, 0x450, 0x470, 0x490, 0x460, 0x480};

bool word_character(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; }

std::string upper(std::string_view text) {
    std::string up(text);
    for (char& c : up) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    return up;
}

/// Where `key` stands as words of its own, from `from` on; npos where it does not.
std::size_t find_key(std::string_view line, std::string_view key, std::size_t from = 0) {
    for (std::size_t at = line.find(key, from); at != std::string_view::npos; at = line.find(key, at + 1)) {
        const bool begins =
            at == 0 || (!word_character(line[at - 1]) && line[at - 1] != ':' && line[at - 1] != '-');
        const std::size_t end = at + key.size();
        const bool ends = end == line.size() || !word_character(line[end]);
        if (begins && ends) return at;
    }
    return std::string_view::npos;
}

/// One line of a dump.
class Line {
public:
    Line(std::string_view text, unsigned number, const std::string& file)
        : text_(text), number_(number), file_(file) {}

    std::string_view text() const { return text_; }
    /// The line as if it ended there.
    Line until(std::size_t end) const { return {text_.substr(0, end), number_, file_}; }
    bool contains(std::string_view what) const { return text_.find(what) != std::string_view::npos; }
    /// The number behind `key` and "=" or ":"; none when the line has no such key. Throws BadInput when there
    /// is no number, or one that is too large.
    std::optional<u64> number(std::string_view key, unsigned base, u64 largest) const {
        std::size_t at = find_key(text_, key);
        while (at != std::string_view::npos) {
            const std::size_t separator = text_.find_first_not_of(' ', at + key.size());
            if (separator != std::string_view::npos && (text_[separator] == '=' || text_[separator] == ':'))
                return parse(separator + 1, key, base, largest);
            at = find_key(text_, key, at + 1);
        }
        return std::nullopt;
    }
    /// The number at this place.
    u64 parse(std::size_t at, std::string_view key, unsigned base, u64 largest) const {
        at = text_.find_first_not_of(' ', at);
        if (at == std::string_view::npos) refuse(key, "a number");
        if (text_.substr(at).starts_with("0x") || text_.substr(at).starts_with("0X")) {
            base = 16;
            at += 2;
        }
        u64 value = 0;
        const char* const end = text_.data() + text_.size();
        const auto [last, error] = std::from_chars(text_.data() + at, end, value, static_cast<int>(base));
        if (error == std::errc::invalid_argument || (last != end && word_character(*last)))
            refuse(key, "a number");
        if (error != std::errc{} || value > largest)
            refuse(key, fmt::format("a number up to {:#x}", largest));
        return value;
    }
    [[noreturn]] void refuse(std::string_view key, const std::string& expected) const {
        throw BadInput(file_, fmt::format("line {}: {}", number_, key), expected);
    }

private:
    std::string_view text_;
    unsigned number_;
    const std::string& file_;
};

/// What the kernel, syslog or Xen write in front: the line from the first of the words that dumps begin lines
/// with is found by its key, so only what could be mistaken for a key is taken away: everything up to
/// "(XEN)", a time in brackets, and the module's name.
std::string_view without_prefix(std::string_view line) {
    if (const std::size_t xen = line.find("(XEN)"); xen != std::string_view::npos)
        line.remove_prefix(xen + 5);
    while (true) {
        const std::size_t at = line.find_first_not_of(" \t");
        if (at == std::string_view::npos) return {};
        line.remove_prefix(at);
        if (line.front() == '[' || line.front() == '<') {
            const std::size_t end = line.find(line.front() == '[' ? ']' : '>');
            if (end == std::string_view::npos) return line;
            line.remove_prefix(end + 1);
            continue;
        }
        constexpr std::string_view modules[] = {"kvm_intel:", "kvm_amd:", "kvm:", "SVM:", "VMX:"};
        const auto module = std::find_if(std::begin(modules), std::end(modules),
                                         [line](std::string_view m) { return line.starts_with(m); });
        if (module != std::end(modules)) {
            line.remove_prefix(module->size());
            continue;
        }
        // syslog: "Sep  8 22:52:20 host kernel: [...] "
        if (const std::size_t kernel = line.find(" kernel: "); kernel != std::string_view::npos) {
            line.remove_prefix(kernel + 9);
            continue;
        }
        return line;
    }
}

u64 largest_of(F field) { return row_of(field).mask(); }

// ---- VMCS ---------------------------------------------------------------------------------------

F nth(F first, unsigned n) { return static_cast<F>(static_cast<unsigned>(first) + n); }

/// "CS: sel=0x0008, attr=0x0a09b, limit=..., base=..." (KVM) or "CS: 0008 0a09b ffffffff 000..." (Xen).
bool read_vmcs_segment(const Line& line, VmcsDump& to, unsigned& count) {
    const std::string_view text = line.text();
    const std::size_t colon = text.find(':');
    if (colon == std::string_view::npos) return false;
    const std::string_view name = text.substr(0, colon);
    const bool table = name == "GDTR" || name == "IDTR";
    const auto segment = std::find(std::begin(segment_names), std::end(segment_names), name);
    if (!table && segment == std::end(segment_names)) return false;
    const auto n = static_cast<unsigned>(segment - std::begin(segment_names));
    const auto put = [&](F field, u64 value) {
        to[field] = value;
        ++count;
    };
    const F limit =
        table ? (name == "GDTR" ? F::guest_gdtr_limit : F::guest_idtr_limit) : nth(F::guest_es_limit, n);
    const F base =
        table ? (name == "GDTR" ? F::guest_gdtr_base : F::guest_idtr_base) : nth(F::guest_es_base, n);
    const F selector = nth(F::guest_es_selector, n), rights = nth(F::guest_es_access_rights, n);
    if (const auto value = line.number("limit", 16, largest_of(limit))) {
        put(limit, *value);
        if (const auto v = line.number("base", 16, ~u64{0})) put(base, *v);
        if (table) return true;
        if (const auto v = line.number("sel", 16, largest_of(selector))) put(selector, *v);
        if (const auto v = line.number("attr", 16, largest_of(rights))) put(rights, *v);
        return true;
    }
    // Xen: numbers in the order of its heading.
    std::vector<F> fields{limit, base};
    if (!table) fields.insert(fields.begin(), {selector, rights});
    std::size_t at = colon + 1;
    for (const F field : fields) {
        at = text.find_first_not_of(' ', at);
        if (at == std::string_view::npos) line.refuse(name, fmt::format("{} numbers", fields.size()));
        put(field, line.parse(at, name, 16, largest_of(field)));
        at = std::min(text.find(' ', at), text.size());
    }
    return true;
}

/// "SVI|RVI = 00|31 TPR Threshold = 0x00".
void read_interrupt_status(const Line& line, VmcsDump& to, unsigned& count) {
    const std::size_t key = line.text().find("SVI|RVI");
    if (key == std::string_view::npos) return;
    const std::size_t equals = line.text().find('=', key), bar = line.text().find('|', key + 7);
    if (equals == std::string_view::npos || bar == std::string_view::npos || bar < equals)
        line.refuse("SVI|RVI", "two numbers with | between");
    const u64 svi = line.until(bar).parse(equals + 1, "SVI", 16, 0xFF),
              rvi = line.parse(bar + 1, "RVI", 16, 0xFF);
    to[F::guest_interrupt_status] = svi << 8 | rvi;
    ++count;
}

Part part_of(const Line& line, Part before) {
    if (line.contains("*** Guest State ***")) return Part::guest;
    if (line.contains("*** Host State ***")) return Part::host;
    if (line.contains("*** Control State ***")) return Part::control;
    return before;
}

void read_vmcs_line(const Line& line, Part part, VmcsDump& to, unsigned& count) {
    if (part == Part::guest && read_vmcs_segment(line, to, count)) return;
    if (part == Part::control) read_interrupt_status(line, to, count);
    std::string_view claimed;
    for (const VmcsRow& row : vmcs_rows)
        if (row.part == part && !row.line.empty() && line.text().starts_with(row.line)) claimed = row.line;
    for (const VmcsRow& row : vmcs_rows) {
        if (row.part != part || row.line != claimed || to[row.field])
            continue;              // what is printed later is no dump
        if (row.key == "CS:RIP") { // two numbers with a colon between
            const std::size_t at = line.text().find("CS:RIP=");
            if (at == std::string_view::npos) continue;
            const std::size_t colon = line.text().find(':', at + 7);
            if (colon == std::string_view::npos) line.refuse(row.key, "two numbers with a colon between");
            to[row.field] = line.until(colon).parse(at + 7, row.key, 16, largest_of(row.field));
            const F eip = part == Part::guest ? F::guest_ia32_sysenter_eip : F::host_ia32_sysenter_eip;
            to[eip] = line.parse(colon + 1, row.key, 16, ~u64{0});
            count += 2;
        } else if (const auto value = line.number(row.key, 16, largest_of(row.field))) {
            to[row.field] = *value;
            ++count;
        }
    }
}

// ---- VMCB ---------------------------------------------------------------------------------------

/// "es:   s: 0000 a: 0092 l: 0000ffff b: 0..." (KVM), "CS: 0008 029b ffffffff 0..." or "CS: sel=0x.., ..."
/// (Xen).
bool read_vmcb_segment(const Line& line, VmcbDump& to, unsigned& count) {
    const std::string_view text = line.text();
    const std::size_t colon = text.find(':');
    if (colon == std::string_view::npos || colon > 4) return false;
    const std::string name = upper(text.substr(0, colon));
    const auto segment = std::find(std::begin(segment_names), std::end(segment_names), name);
    const auto n = name == "GDTR"   ? 8u
                   : name == "IDTR" ? 9u
                                    : static_cast<unsigned>(segment - std::begin(segment_names));
    if (n == 8 && name != "GDTR") return false;
    const unsigned at = vmcb_segments[n];
    static constexpr unsigned sizes[] = {2, 2, 4, 8}, places[] = {0, 2, 4, 8};
    static constexpr std::string_view kvm[] = {"s", "a", "l", "b"}, xen[] = {"sel", "attr", "limit", "base"};
    const auto put = [&](unsigned i, u64 value) {
        to.put(at + places[i], sizes[i], value);
        ++count;
    };
    for (const auto& keys : {kvm, xen}) {
        if (!line.number(keys[3], 16, ~u64{0})) continue;
        for (unsigned i = 0; i < 4; ++i)
            if (const auto value = line.number(keys[i], 16, low_mask(8 * sizes[i]))) put(i, *value);
        return true;
    }
    std::size_t place = colon + 1;
    for (unsigned i = 0; i < 4; ++i) {
        place = text.find_first_not_of(' ', place);
        if (place == std::string_view::npos) line.refuse(name, "four numbers");
        put(i, line.parse(place, name, 16, low_mask(8 * sizes[i])));
        place = std::min(text.find(' ', place), text.size());
    }
    return true;
}

void read_vmcb_line(const Line& line, bool xen, VmcbDump& to, unsigned& count) {
    if (read_vmcb_segment(line, to, count)) return;
    // KVM: two words, "intercepts:  bc4c8027 00007e6f".
    if (const std::size_t at = find_key(line.text(), "intercepts"); at != std::string_view::npos) {
        const std::size_t first = line.text().find_first_not_of(": ", at + 10);
        const std::size_t second = line.text().find(' ', first);
        if (first == std::string_view::npos) line.refuse("intercepts", "two numbers");
        if (second == std::string_view::npos) { // older ones: one number of 64 bits
            to.put(0x00C, 8, line.parse(first, "intercepts", 16, ~u64{0}));
        } else {
            to.put(0x00C, 4, line.parse(first, "intercepts", 16, low_mask(32)));
            to.put(0x010, 4, line.parse(second, "intercepts", 16, low_mask(32)));
        }
        count += 2;
        return;
    }
    // Xen: "event_inj 0000000000000000, valid? 0, ..."; "VMCB" names of its own are rows.
    if (const std::size_t at = line.text().find("event_inj "); xen && at != std::string_view::npos) {
        const Line number = line.until(line.text().find(',', at));
        to.put(0x0A8, 8, number.parse(at + 10, "event_inj", 16, ~u64{0}));
        ++count;
        return;
    }
    for (const VmcbRow& row : vmcb_rows) {
        if (to.known[row.offset + row.bytes - 1u]) continue; // what is printed later is no dump
        if (const auto value = line.number(row.key, row.base, low_mask(8u * row.bytes))) {
            to.put(row.offset, row.bytes, *value);
            ++count;
        }
    }
}

// ---- JSON ---------------------------------------------------------------------------------------

u64 json_number(const json& value, const std::string& file, const std::string& place, u64 largest) {
    u64 number = 0;
    bool good = false;
    if (value.is_number_unsigned()) {
        number = value.get<u64>();
        good = true;
    } else if (value.is_string()) {
        const auto text = value.get<std::string>();
        const bool hexadecimal = text.starts_with("0x");
        const char* const first = text.data() + (hexadecimal ? 2 : 0);
        const char* const end = text.data() + text.size();
        const auto [last, error] = std::from_chars(first, end, number, hexadecimal ? 16 : 10);
        good = first != end && error == std::errc{} && last == end;
    }
    if (!good || number > largest)
        throw BadInput(file, place, fmt::format("a number up to {:#x}, such as 31 or \"0x1f\"", largest));
    return number;
}

Dump read_json(std::string_view text, const std::string& file) {
    json parsed = json::parse(text, nullptr, false);
    if (!parsed.is_object()) throw BadInput(file, "", "a JSON object with \"vmcs\" or \"vmcb\"");
    Dump dump;
    dump.source = "JSON";
    dump.svm = parsed.contains("vmcb");
    const char* key = dump.svm ? "vmcb" : "vmcs";
    if (!parsed.contains(key) || !parsed[key].is_object())
        throw BadInput(file, key, "an object with a member for each field");
    for (const auto& [name, value] : parsed[key].items()) {
        const std::string place = std::string(key) + "." + name;
        ++dump.fields;
        if (dump.svm) {
            const VMCB::FieldRow* row = find_vmcb_field(name);
            if (!row) throw BadInput(file, place, "the name of a VMCB field");
            dump.vmcb.put(row->offset, row->bytes, json_number(value, file, place, low_mask(8 * row->bytes)));
        } else {
            const auto field = find_vmcs_field(name);
            if (!field) throw BadInput(file, place, "the name of a VMCS field");
            dump.vmcs[*field] = json_number(value, file, place, largest_of(*field));
        }
    }
    return dump;
}

// ---- Text ---------------------------------------------------------------------------------------

/// Lines that begin a dump.
bool begins_vmcs(const Line& line) { return line.contains("*** Guest State ***"); }
bool begins_vmcb(const Line& line) {
    return line.contains("VMCB Control Area") || line.contains("Dumping guest's current state at") ||
           line.text().starts_with("cr_intercepts");
}

Dump read_text(std::string_view text, const std::string& file) {
    Dump dump;
    Part part = Part::none;
    bool inside = false, xen = false;
    unsigned number = 0;
    while (!text.empty()) {
        const std::size_t end = std::min(text.find('\n'), text.size());
        std::string_view raw = text.substr(0, end);
        text.remove_prefix(std::min(end + 1, text.size()));
        if (raw.ends_with('\r')) raw.remove_suffix(1);
        ++number;
        const Line line(without_prefix(raw), number, file);
        const bool vmcs = begins_vmcs(line), vmcb = begins_vmcb(line);
        if (vmcs || vmcb) {
            if (inside && dump.fields > 0) break; // the next dump
            if (!inside) dump.first_line = number;
            inside = true;
            dump.svm = vmcb;
        }
        xen |= inside && raw.find("(XEN)") != std::string_view::npos;
        if (!inside) continue;
        part = part_of(line, part);
        if (dump.svm) {
            read_vmcb_line(line, xen, dump.vmcb, dump.fields);
        } else {
            read_vmcs_line(line, part, dump.vmcs, dump.fields);
        }
    }
    if (!inside || dump.fields == 0)
        throw BadInput(file, fmt::format("line {}", std::max(number, 1u)),
                       "a dump of a VMCS (KVM, Xen: \"*** Guest State ***\"), of a VMCB (KVM: \"VMCB Control "
                       "Area\", Xen: "
                       "\"Dumping guest's current state\"), or JSON");
    dump.source = xen ? "Xen" : "KVM";
    return dump;
}

} // namespace

void VmcbDump::put(unsigned offset, unsigned count, u64 value) {
    for (unsigned i = 0; i < count; ++i) {
        bytes[offset + i] = static_cast<u8>(value >> (8 * i));
        known[offset + i] = true;
    }
}

bool VmcbDump::has(const VMCB::FieldRow& row) const {
    for (unsigned i = 0; i < row.bytes; ++i)
        if (!known[row.offset + i]) return false;
    return true;
}

Dump read_dump(std::string_view text, const std::string& file) {
    const std::size_t first = text.find_first_not_of(" \t\r\n");
    if (first == std::string_view::npos) throw BadInput(file, "", "a dump; the file is empty");
    return text[first] == '{' ? read_json(text, file) : read_text(text, file);
}

std::string dump_as_json(const Dump& dump) {
    nlohmann::ordered_json fields = nlohmann::ordered_json::object();
    if (dump.svm) {
        std::array<u8, VMCB::bytes> bytes = dump.vmcb.bytes;
        const VmcbView view(bytes.data());
        for (const VMCB::FieldRow& row : VMCB::field_rows)
            if (dump.vmcb.has(row)) fields[std::string(row.name)] = fmt::format("{:#x}", view.get(row));
    } else {
        for (std::size_t i = 0; i < vmcs_field_count; ++i)
            if (dump.vmcs.field[i])
                fields[std::string(vmcs_field_rows[i].name)] = fmt::format("{:#x}", *dump.vmcs.field[i]);
    }
    nlohmann::ordered_json out;
    out[dump.svm ? "vmcb" : "vmcs"] = fields;
    return out.dump(2);
}

} // namespace exeunt
