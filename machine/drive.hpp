// A raw disk image as the block device's medium. What the guest writes stays in the machine: the file is never
// changed, so that a recording can be replayed against the same bytes.
#pragma once

#include "base/snapshot.hpp"
#include "devices/virtio_block.hpp"

#include <array>
#include <cstdio>
#include <map>
#include <memory>
#include <string>

namespace exeunt {

class Drive final : public BlockBackend {
public:
    static constexpr std::size_t sector_bytes = 512;

    /// Throws BadInput.
    explicit Drive(const std::string& path);

    u64 sectors() const override { return sectors_; }
    bool read_only() const override { return false; }
    bool read(u64 sector, std::span<u8> to) override;
    bool write(u64 sector, std::span<const u8> from) override;
    bool flush() override { return true; }
    /// What was written, sector by sector.
    void visit(StateVisitor& visitor);

private:
    using Sector = std::array<u8, sector_bytes>;
    struct Close {
        void operator()(std::FILE* file) const { std::fclose(file); }
    };
    bool read_file(u64 sector, std::span<u8> to);

    std::unique_ptr<std::FILE, Close> file_;
    u64 sectors_ = 0;
    std::map<u64, Sector> written_;
};

}  // namespace exeunt
