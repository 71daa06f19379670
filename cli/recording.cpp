#include "cli/recording.hpp"

namespace exeunt {

std::unique_ptr<Recording> start_recording(const std::string&) {
    throw BadInput("--trace", "", "no recording: this build can not record yet");
}

}  // namespace exeunt
