// Who changed the bytes of a few pages last: on request, for VMCBs and paging structures, which are plain
// memory.
//
// A watched page counts as one that holds decoded code, so that every store to it takes the slow way and is
// told before it happens; the machine runs on exactly as without. Stores of what is there already change
// nothing and are not seen. The tick is that of the end of the block of instructions in which the store is.
#pragma once

#include "arch/observer.hpp"
#include "machine/machine.hpp"
#include "mmu/physical_memory.hpp"

#include <array>
#include <map>

namespace exeunt {

class MemoryWatch final : public CodeListener {
public:
    explicit MemoryWatch(Machine& machine);

    /// From now on; RAM only.
    void watch(Physical page);
    /// Who changed any of these bytes last. They are within one page.
    WrittenBy writer(Physical at, unsigned bytes);

    void code_page_added(Physical) override {}
    bool code_written(Physical start, u64 size) override;

private:
    struct Page {
        std::array<u8, page_size> before{};
        std::array<u16, page_size> writer{}; ///< number in `writers_`; 0: nobody
        WrittenBy pending;                   ///< who is about to change it, since `before` was taken
    };

    void settle(u64 number, Page& page);

    Machine& machine_;
    std::map<u64, Page> pages_;                   ///< by page number
    std::vector<WrittenBy> writers_{WrittenBy{}}; ///< the last ones, most recent last
};

} // namespace exeunt
