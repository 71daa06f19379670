#include "machine/machine.hpp"

#include "apic/local_apic.hpp"
#include "base/ensure.hpp"
#include "cpu/cpu.hpp"
#include "cpu/msrs.hpp"
#include "machine/board.hpp"
#include "machine/extensions.hpp"

#include <fmt/format.h>

namespace exeunt {

namespace {

MachineConfig validated(MachineConfig config) {
    config.validate();
    if (config.cpu.find('/') != std::string::npos || config.cpu.ends_with(".json")) {
        config.cpu_file.path = config.cpu;
        hash_image(config.cpu_file);
    }
    return config;
}

CpuModel load_model(const std::string& name) {
    try {
        return CpuModel::load(name);
    } catch (const ModelError& error) {
        throw BadInput(std::string("--cpu: ") + error.what());
    }
}

}  // namespace

/// One logical processor with its local APIC and its extension.
struct Machine::Processor {
    struct Tsc final : TscSource {
        explicit Tsc(const Cpu& of) : cpu(of) {}
        u64 tsc_offset() const override { return cpu.tsc_offset; }
        const Cpu& cpu;
    };

    Processor(unsigned number, Machine& machine)
        : cpu(number, machine.model_, machine.memory_, machine.bus_, machine.config_.random_seed + number), tsc(cpu),
          apic({.id = number,
                .bootstrap = number == 0,
                .physical_address_bits = machine.model_.physical_bits,
                .x2apic = machine.model_.has(Feature::x2APIC),
                .tsc_deadline = machine.model_.has(Feature::TSC_DEADLINE)},
               machine.board_->apic_bus, machine.clock_, cpu.signals(), tsc, &machine.board_->pic),
          extension(attach_extension(
              cpu, machine.svm_interconnect_,
              machine.processors_.empty() ? nullptr : machine.processors_.front()->extension.get())) {
        cpu.controller = &apic;
        cpu.observer = machine.observer_;
        machine.board_->intr.add(apic.lint(0));
    }

    Cpu cpu;
    Tsc tsc;
    LocalApic apic;
    std::unique_ptr<Virtualization> extension;
};

Machine::Machine(MachineConfig config)
    : config_(validated(std::move(config))), model_(load_model(config_.cpu)), memory_(config_.memory),
      loop_(config_.schedule, bus_), clock_(loop_) {
    build();
    set_invariant_reporter([this] { return describe(); });
}

Machine::~Machine() { set_invariant_reporter(nullptr); }

void Machine::build() {
    using Kind = PhysicalMemory::Kind;
    memory_.set_bus(bus_);
    memory_.map(Physical{AddressMap::vga_memory}, AddressMap::vga_memory_bytes, Kind::mmio);
    memory_.map(Physical{AddressMap::option_roms}, AddressMap::option_roms_bytes + AddressMap::bios_bytes, Kind::rom);
    memory_.map(Physical{AddressMap::four_gib - AddressMap::bios_bytes}, AddressMap::bios_bytes, Kind::rom);
    loop_.set_clock(clock_);
    BoardHooks hooks;
    hooks.serial_output = [this](u8 byte) {
        if (serial_output_) serial_output_(byte);
    };
    hooks.debug_exit = [this](u32 value) { loop_.end({.reason = EndReason::debug_exit, .value = value}); };
    hooks.power_off = [this] { loop_.end({.reason = EndReason::powered_off}); };
    hooks.reset = [this] { loop_.between_slices([this] { power_up(); }); };
    hooks.a20 = [this](bool enabled) {
        if (!enabled)
            loop_.end({.reason = EndReason::unmodelled, .message = "not modelled: the A20 gate closed (SDM 3A 20.1.1)"});
    };
    board_ = std::make_unique<Board>(clock_, memory_, config_.cpus, config_.drive.path, std::move(hooks));
    board_->connect(bus_);
    board_->pci.set_extended_ports(model_.has(Quirk::amd_platform_msrs));  // NB_CFG.EnableCf8ExtCfg is set
    for (unsigned i = 0; i < config_.cpus; ++i) {
        Processor& processor = *processors_.emplace_back(make_processor(i));
        bus_.add_local_apic(processor.apic);
        loop_.add(processor.cpu);
    }
}

std::unique_ptr<Machine::Processor> Machine::make_processor(unsigned number) {
    try {
        return std::make_unique<Processor>(number, *this);
    } catch (const ModelError& error) {
        throw BadInput(std::string("--cpu: ") + error.what());
    }
}

void Machine::set_input(InputSource& source, InputLog* log) {
    loop_.set_input(source, [this](std::span<const u8> bytes) { board_->serial.receive(bytes); }, log);
}

void Machine::set_observer(Observer* observer) {
    observer_ = observer;
    for (auto& processor : processors_) processor->cpu.observer = observer;
}

Cpu& Machine::cpu(unsigned index) { return processors_[index]->cpu; }

void Machine::boot() {
    kernel_ = read_image(config_.kernel);
    initrds_.clear();
    for (ImageFile& initrd : config_.initrds) initrds_.push_back(read_image(initrd));
    // A drive's file may be large: it is compared when a recording says what it was.
    if (config_.drive.given() && !config_.drive.xxh128.empty()) hash_image(config_.drive);
    power_up();
}

/// Power-up, or a reset of the whole machine: in both cases the images are loaded as new.
void Machine::power_up() {
    board_->reset();
    for (auto& processor : processors_) {
        processor->cpu.reset(false);
        processor->apic.reset();
        if (processor->cpu.index != 0) processor->cpu.activity = Activity::wait_for_sipi;
    }
    board_->program_as_firmware();
    FirmwareFacts facts = board_->facts();
    for (const auto& processor : processors_) facts.apic_ids.push_back(processor->cpu.index);
    rsdp_ = write_firmware_tables(facts, memory_);
    for (auto& processor : processors_) firmware_state(*processor);
    start_images();
}

/// Registers that firmware leaves set: memory types, and VT-x allowed and locked (SDM 3C 23.7 "Enabling and
/// Entering VMX Operation"); the bootstrap processor's local APIC in virtual wire mode (SDM 3A 10.1).
void Machine::firmware_state(Processor& processor) {
    constexpr u32 IA32_FEATURE_CONTROL = 0x3A;
    constexpr u64 lock = 1, vmx_outside_smx = 4;
    Cpu& cpu = processor.cpu;
    if (model_.has(Feature::MTRR)) set_firmware_mtrrs(cpu);
    if (cpu.msrs->has(IA32_FEATURE_CONTROL)) cpu.msrs->store(IA32_FEATURE_CONTROL, lock | vmx_outside_smx);
    if (cpu.index != 0) return;
    constexpr u32 software_enable = 0x1FF, ext_int = 0x700, nmi = 0x400;
    processor.apic.mmio_write(LocalApic::SVR, 4, software_enable);
    processor.apic.mmio_write(LocalApic::LVT_LINT0, 4, ext_int);
    processor.apic.mmio_write(LocalApic::LVT_LINT1, 4, nmi);
}

void Machine::start_images() {
    BootImages images;
    images.kernel = {config_.kernel.path, kernel_};
    for (std::size_t i = 0; i < initrds_.size(); ++i)
        images.initrds.push_back({config_.initrds[i].path, initrds_[i], config_.initrds[i].text});
    images.append = config_.append;
    const auto map = memory_map(memory_.low_ram_bytes(), memory_.high_ram_bytes());
    enter_image(processors_[0]->cpu, load_images(images, memory_, map, rsdp_));
}

std::string Machine::describe() {
    std::string out;
    for (auto& processor : processors_) {
        const Cpu& cpu = processor->cpu;
        out += fmt::format("CPU {}: RIP {:#x} RFLAGS {:#x} CPL {} CR0 {:#x} CR2 {:#x} CR3 {:#x} CR4 {:#x} EFER {:#x}"
                           "{}\n",
                           cpu.index, cpu.rip, cpu.rflags(), cpu.cpl, cpu.control.cr0, cpu.control.cr2,
                           cpu.control.cr3, cpu.control.cr4, cpu.control.efer, cpu.in_guest ? " guest" : "");
        static constexpr const char* names[] = {"RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI",
                                                "R8",  "R9",  "R10", "R11", "R12", "R13", "R14", "R15"};
        for (unsigned i = 0; i < 16; ++i)
            out += fmt::format("{:>4} {:016x}{}", names[i], cpu.r[i], i % 4 == 3 ? "\n" : " ");
        for (unsigned i = 0; i < 8; ++i) {
            static constexpr const char* segments[] = {"ES", "CS", "SS", "DS", "FS", "GS", "LDTR", "TR"};
            const Segment& segment = cpu.segment[i];
            out += fmt::format("{:>4} {:04x} base {:x} limit {:x} access {:x}{}", segments[i], segment.selector,
                               segment.base, segment.limit, segment.access, i % 2 == 1 ? "\n" : "  ");
        }
    }
    return out + fmt::format("tick {}\n", now());
}

void Machine::visit(StateVisitor& visitor) {
    visitor.enter("machine");
    loop_.visit(visitor);
    visitor.enter("clock");
    clock_.visit(visitor);
    visitor.leave();
    board_->visit(visitor);
    for (auto& processor : processors_) {
        visitor.enter("processor" + std::to_string(processor->cpu.index));
        processor->cpu.visit(visitor);
        visitor.enter("local_apic");
        processor->apic.visit(visitor);
        visitor.leave();
        visitor.leave();
    }
    memory_.visit(visitor);
    visitor.leave();
}

}  // namespace exeunt
