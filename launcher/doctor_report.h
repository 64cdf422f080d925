#pragma once
#include <string>
#include <vector>

#include "launcher/doctor.h"

namespace trireme {

// A finding that some ranks share.
struct DoctorRow {
  Finding finding;
  std::vector<int> ranks;
};

// Each rank's findings (in rank order) as rows: one a check where all agree, else one for each
// answer, and then versions that differ are a WARN of their own.
[[nodiscard]] std::vector<DoctorRow> merge_findings(const std::vector<Findings>& of_ranks);

[[nodiscard]] std::string findings_to_json(const Findings& findings);
[[nodiscard]] Findings findings_from_json(const std::string& text);

// The table, with the cures below it.
[[nodiscard]] std::string doctor_table(const std::vector<DoctorRow>& rows,
                                       const std::vector<std::string>& hosts);
[[nodiscard]] std::string doctor_json(const std::vector<DoctorRow>& rows,
                                      const std::vector<std::string>& hosts);
[[nodiscard]] Health worst(const std::vector<DoctorRow>& rows);
}  // namespace trireme
