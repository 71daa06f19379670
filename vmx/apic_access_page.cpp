#include "vmx/apic_access_page.hpp"

namespace exeunt {

Result<SecondLevelPage> ApicAccessPage::translate(GuestPhysical address, const SecondLevelAccess& access) {
    refusal_.reset();
    SecondLevelPage page;
    if (second_level_) {
        page = TRY(second_level_->translate(address, access));
    } else {
        page.physical = Physical{address.value};
        page.bytes = u64{1} << 30; // the largest page that the guest's own tables have
    }
    if (page.physical.page() != page_ || access.probe) return page;
    if (access.paging_structure || !access.linear_valid) {
        // 29.4.6.3 "APIC Accesses Caused by Physical Accesses" leaves open whether those exit; here they do
        // not.
        if (!second_level_) return page;
        return refuse(ApicAccess::guest_physical, 0);
    }
    if (access.type == AccessType::execute)
        return refuse(ApicAccess::linear_fetch, page.physical.page_offset());
    page.special = true;
    page.bytes = page_size;
    return page;
}

} // namespace exeunt
