#pragma once
#include <filesystem>
#include <ostream>

#include "launcher/report_table.h"

namespace trireme {

// How much of it is looked at: what headers say, or every byte, checked.
enum class InspectDepth { kHeaders, kEveryByte };

// Reports on what `path` holds, found by its content: a dataset, a diffusers folder or a part of
// one, a checkpoint, a weights file, a run directory, or a configuration. Local. Throws InputError,
// after the report so far, where something is missing, damaged or not finite.
void inspect_path(const std::filesystem::path& path, InspectDepth depth, std::ostream& out);

// The kinds, each adding to `table`.
void inspect_dataset(const std::filesystem::path& file, InspectDepth depth, ReportTable& table);
void inspect_weights(const std::filesystem::path& file, InspectDepth depth, ReportTable& table);
void inspect_adapter(const std::filesystem::path& folder, InspectDepth depth, ReportTable& table);
void inspect_diffusers_folder(const std::filesystem::path& folder, InspectDepth depth,
                              ReportTable& table);
void inspect_checkpoint(const std::filesystem::path& folder, InspectDepth depth,
                        ReportTable& table);
void inspect_run(const std::filesystem::path& folder, InspectDepth depth, ReportTable& table);
}  // namespace trireme
