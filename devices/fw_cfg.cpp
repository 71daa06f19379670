#include "devices/fw_cfg.hpp"

#include "base/ensure.hpp"
#include "devices/register_file.hpp"

#include <algorithm>

namespace exeunt {

namespace {

constexpr u32 control_error = 1, control_read = 2, control_skip = 4, control_select = 8, control_write = 16;
constexpr u32 version_traditional = 1, version_dma = 2;
constexpr std::size_t name_bytes = 56;
/// Zeros that one DMA read may ask for past the end of an item: a request for more is an error.
constexpr u64 padding_limit = u64{16} << 20;

void put_big(std::vector<u8>& to, u64 value, unsigned bytes) {
    for (unsigned i = bytes; i-- > 0;) to.push_back(static_cast<u8>(value >> (8 * i)));
}
std::vector<u8> little(u64 value, unsigned bytes) {
    std::vector<u8> result;
    for (unsigned i = 0; i < bytes; ++i) result.push_back(static_cast<u8>(value >> (8 * i)));
    return result;
}
u64 from_big(const u8* bytes, unsigned count) {
    u64 value = 0;
    for (unsigned i = 0; i < count; ++i) value = value << 8 | bytes[i];
    return value;
}
constexpr u32 swapped(u32 value) {
    return value >> 24 | (value >> 8 & 0xFF00) | (value << 8 & 0xFF'0000) | value << 24;
}

} // namespace

FwCfg::FwCfg(DmaMemory& memory, const FwCfgOptions& options) : memory_(memory) {
    add_item(signature, {'Q', 'E', 'M', 'U'});
    add_u32(id, version_traditional | version_dma);
    add_u64(ram_size, options.ram_bytes);
    add_u16(nographic, 1);
    add_u16(nb_cpus, options.cpus);
    add_u16(FwCfg::max_cpus, options.max_cpus);
    add_u16(boot_menu, 0);
    rebuild_directory();
}

void FwCfg::add_item(u16 selector, std::vector<u8> bytes) { items_[selector] = std::move(bytes); }
void FwCfg::add_u16(u16 selector, u16 value) { add_item(selector, little(value, 2)); }
void FwCfg::add_u32(u16 selector, u32 value) { add_item(selector, little(value, 4)); }
void FwCfg::add_u64(u16 selector, u64 value) { add_item(selector, little(value, 8)); }

u16 FwCfg::add_file(std::string_view name, std::vector<u8> bytes) {
    ENSURE(name.size() < name_bytes && file_first + files_.size() < 0x4000);
    const u16 selector = static_cast<u16>(file_first + files_.size());
    files_.push_back({std::string(name), selector, static_cast<u32>(bytes.size())});
    add_item(selector, std::move(bytes));
    rebuild_directory();
    return selector;
}

// "File Directory Structure": a count and entries, all big-endian.
void FwCfg::rebuild_directory() {
    std::vector<u8> directory;
    put_big(directory, files_.size(), 4);
    for (const File& file : files_) {
        put_big(directory, file.bytes, 4);
        put_big(directory, file.selector, 2);
        put_big(directory, 0, 2);
        std::string name = file.name;
        name.resize(name_bytes, '\0');
        directory.insert(directory.end(), name.begin(), name.end());
    }
    add_item(file_dir, std::move(directory));
}

const std::vector<u8>* FwCfg::selected() const {
    const auto item = items_.find(selector_);
    return item == items_.end() ? nullptr : &item->second;
}

u8 FwCfg::read_data() {
    const std::vector<u8>* item = selected();
    return item && position_ < item->size() ? (*item)[position_++] : 0;
}

u32 FwCfg::port_read(u16 port, unsigned size) {
    if (port == data_port)
        return read_bytewise(port, size, [this](u16 p) { return p == data_port ? read_data() : u8{0}; });
    if (port >= dma_port && port < dma_port + 8)
        return read_bytewise(port, size, [](u16 p) {
            return p < dma_port + 8 ? static_cast<u8>("QEMU CFG"[p - dma_port]) : u8{0xFF};
        });
    return size >= 4 ? ~u32{0} : (u32{1} << (8 * size)) - 1;
}

// The DMA address is big-endian: the half at 514H first, and the one at 518H starts the transfer.
void FwCfg::port_write(u16 port, unsigned size, u32 value) {
    if (port == selector_port && size == 2) {
        selector_ = static_cast<u16>(value);
        position_ = 0;
    } else if (port == dma_port && size == 4) {
        dma_high_ = swapped(value);
    } else if (port == dma_port + 4 && size == 4) {
        const u64 address = u64{dma_high_} << 32 | swapped(value);
        dma_high_ = 0;
        dma(address);
    }
}

// "Guest-side DMA Interface".
void FwCfg::dma(u64 address) {
    u8 request[16];
    memory_.read(address, request, sizeof request);
    const u32 control = static_cast<u32>(from_big(request, 4));
    const u64 length = from_big(request + 4, 4), to = from_big(request + 8, 8);
    if (control & control_select) {
        selector_ = static_cast<u16>(control >> 16);
        position_ = 0;
    }
    const std::vector<u8>* item = selected();
    const u64 left = item && position_ < item->size() ? item->size() - position_ : 0;
    u32 result = 0;
    if (control & control_read) {
        const u64 data = std::min(left, length);
        if (length - data > padding_limit) {
            result = control_error;
        } else {
            if (data != 0) memory_.write(to, item->data() + position_, data);
            const std::vector<u8> zeros(length - data);
            if (!zeros.empty()) memory_.write(to + data, zeros.data(), zeros.size());
            position_ += data;
        }
    } else if (control & control_write) {
        result = control_error; // no item is writable
    } else if (control & control_skip) {
        position_ += std::min(left, length);
    }
    const u8 answer[4] = {0, 0, 0, static_cast<u8>(result)};
    memory_.write(address, answer, sizeof answer);
}

void FwCfg::reset() {
    selector_ = 0;
    position_ = 0;
    dma_high_ = 0;
}

void FwCfg::visit(StateVisitor& visitor) {
    visitor.value("selector", selector_);
    visitor.value("position", position_);
    visitor.value("dma_high", dma_high_);
}

} // namespace exeunt
