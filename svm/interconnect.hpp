// What reaches the SVM processors of a machine from each other and from devices: doorbells, and invalidations
// that are broadcast. APM 2 15.29.8 "AVIC Doorbell"; APM 3 "INVLPGB".
//
// An IOMMU that posts a device's interrupt sets the bit in the vAPIC backing page (Avic::post) and, when the
// entry says that the virtual processor runs, calls doorbell() (AMD IOMMU specification, "Guest Virtual
// APIC").
#pragma once

#include "base/types.hpp"

#include <vector>

namespace exeunt {

class Svm;

/// INVLPGB: which cached translations go.
struct BroadcastInvalidation {
    bool all_asids = false;
    u32 asid = 0; ///< 0: the host
    bool one_pcid = false;
    u16 pcid = 0;
    bool by_address = false;
    u64 linear = 0, pages = 0, stride = 0;
};

class SvmInterconnect {
public:
    void attach(Svm& svm) { processors_.push_back(&svm); }
    /// Tells the processor with this physical APIC ID, if there is one, to look at its vAPIC backing page.
    void doorbell(u32 apic_id);
    void invalidate(const BroadcastInvalidation& what);

private:
    std::vector<Svm*> processors_; ///< by index
};

} // namespace exeunt
