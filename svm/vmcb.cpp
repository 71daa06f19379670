#include "svm/vmcb.hpp"

namespace exeunt {

// The attributes are bits 55:52 and 47:40 of a descriptor, next to each other: APM 2 15.5.1 "Basic
// Operation".
Segment VmcbView::segment(VmcbField<u16> selector, bool narrow) const {
    const unsigned at_ = selector.offset;
    const u32 attributes = at<u16>(at_ + 2);
    Segment s;
    s.selector = at<u16>(at_);
    s.access = (attributes & 0xFF) | (attributes & 0xF00) << 4;
    s.limit = at<u32>(at_ + 4);
    const u64 base = at<u64>(at_ + 8);
    s.base = narrow ? low32(base) : base;
    if (!(s.access & AR::P)) s.access |= AR::UNUSABLE;
    return s;
}

void VmcbView::put_segment(VmcbField<u16> selector, const Segment& s) {
    const unsigned at_ = selector.offset;
    u32 attributes = (s.access & 0xFF) | (s.access >> 4 & 0xF00);
    if (s.unusable()) attributes &= ~AR::P;
    put_at<u16>(at_, s.selector);
    put_at<u16>(at_ + 2, static_cast<u16>(attributes));
    put_at<u32>(at_ + 4, s.limit);
    put_at<u64>(at_ + 8, s.base);
}

} // namespace exeunt
