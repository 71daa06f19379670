#include "cpu/cpu.hpp"

#include "cpu/blocks.hpp"
#include "cpu/msrs.hpp"
#include "cpu/no_virtualization.hpp"
#include "cpu/performance.hpp"

namespace exeunt {

/// What interrupt controllers say arrives here and is looked at at the next boundary.
class CpuSignals final : public ProcessorSignals {
public:
    explicit CpuSignals(Cpu& cpu) : cpu_(cpu) {}

    void interrupt_changed() override { cpu_.attention(); }
    void nmi() override { raise(cpu_.nmi_pending); }
    void smi() override { raise(cpu_.smi_pending); }
    void init() override {
        cpu_.sipi_pending = false;
        raise(cpu_.init_pending);
    }
    void sipi(u8 vector) override {
        cpu_.sipi_vector = vector;
        raise(cpu_.sipi_pending);
    }

private:
    void raise(bool& pending) {
        pending = true;
        cpu_.attention();
    }
    Cpu& cpu_;
};

Cpu::Cpu(unsigned number, const CpuModel& cpu_model, PhysicalMemory& physical, IoBus& io, u64 random_seed)
    : index(number), model(cpu_model), memory(physical), bus(io), mmu(physical, control), random(random_seed) {
    no_virtualization_ = std::make_unique<NoVirtualization>();
    virtualization = no_virtualization_.get();
    signals_ = std::make_unique<CpuSignals>(*this);
    mmu.set_features({.physical_bits = model.physical_bits, .gigabyte_pages = model.has(Feature::PAGE1GB)});
    msrs = std::make_unique<Msrs>(*this);
    if (model.has(Feature::PDCM)) performance = std::make_unique<PerformanceMonitor>(*this);
    blocks = std::make_unique<BlockCache>(*this);
}

Cpu::~Cpu() = default;

ProcessorSignals& Cpu::signals() { return *signals_; }

}  // namespace exeunt
