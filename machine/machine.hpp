// The machine: memory, processors, interrupt controllers and devices, and the wires between them.
//
// Interrupt lines: ISA interrupt n reaches the 8259's IRQ n and pin n of the I/O APIC (0 reaches pin 2); GSI 16
// to 23 are the PCI interrupts. INTR of the 8259 reaches LINT0 of every processor. SDM 3A 10.1.
//
// Not modelled: the A20 gate closed (the machine stops), SMM, a second package or NUMA node.
#pragma once

#include "arch/features.hpp"
#include "arch/observer.hpp"
#include "machine/bus.hpp"
#include "machine/config.hpp"
#include "machine/loader.hpp"
#include "machine/run_loop.hpp"
#include "mmu/physical_memory.hpp"
#include "svm/interconnect.hpp"

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace exeunt {

class Board;

class Machine {
public:
    /// Throws BadInput. The images are not read yet.
    explicit Machine(MachineConfig config);
    ~Machine();
    Machine(const Machine&) = delete;
    Machine& operator=(const Machine&) = delete;

    /// With the hashes of the images once boot() has read them.
    const MachineConfig& config() const { return config_; }
    const CpuModel& model() const { return model_; }

    // ---- Before boot() -----------------------------------------------------------------------------------
    void set_serial_output(std::function<void(u8)> output) { serial_output_ = std::move(output); }
    void set_input(InputSource& source, InputLog* log);
    /// Null: nothing listens.
    void set_observer(Observer* observer);

    /// Reads the images, and puts everything into the state in which firmware hands over. Throws BadInput.
    void boot();
    const Ending& run() { return loop_.run(); }
    RunLoop& loop() { return loop_; }

    Cpu& cpu(unsigned index);
    unsigned cpu_count() const { return config_.cpus; }
    PhysicalMemory& memory() { return memory_; }
    Bus& bus() { return bus_; }
    Clock& clock() { return clock_; }

    /// Instructions and other ticks that have passed.
    Tick now() const { return loop_.now(); }
    /// Registers of every processor, for people.
    std::string describe();
    /// All state: processors, devices, memory, media, the schedule.
    void visit(StateVisitor& visitor);

private:
    struct Processor;

    void build();
    std::unique_ptr<Processor> make_processor(unsigned number);
    void power_up();
    void start_images();
    void firmware_state(Processor& processor);

    MachineConfig config_;
    CpuModel model_;
    PhysicalMemory memory_;
    Bus bus_;
    RunLoop loop_;
    SvmInterconnect svm_interconnect_;
    Clock clock_;
    std::function<void(u8)> serial_output_;
    Observer* observer_ = nullptr;
    std::vector<u8> kernel_;
    std::vector<std::vector<u8>> initrds_;
    std::unique_ptr<Board> board_;
    std::vector<std::unique_ptr<Processor>> processors_;
    u64 rsdp_ = 0;
};

}  // namespace exeunt
