#include "launcher/doctor_report.h"

#include <algorithm>
#include <array>
#include <set>

#include <nlohmann/json.hpp>

namespace trireme {
namespace {
using Json = nlohmann::ordered_json;

const char* name_of(Health health) {
  constexpr std::array<const char*, 3> kNames = {"OK", "WARN", "FAIL"};
  return kNames.at(static_cast<size_t>(health));
}

bool same(const Finding& a, const Finding& b) {
  return a.health == b.health && a.found == b.found && a.cure == b.cure;
}

// These must be the same on all hosts.
bool is_version(const std::string& check) {
  return check == "LibTorch" || check == "MPI" || check == "HDF5" || check == "NCCL" ||
         check == "PMIx";
}

// "0-3,7"
std::string ranges(const std::vector<int>& ranks) {
  std::string text;
  for (size_t first = 0; first < ranks.size();) {
    size_t last = first;
    while (last + 1 < ranks.size() && ranks[last + 1] == ranks[last] + 1) ++last;
    text += (text.empty() ? "" : ",") + std::to_string(ranks[first]);
    if (last > first) text += "-" + std::to_string(ranks[last]);
    first = last + 1;
  }
  return text;
}

Json json_of(const Finding& finding) {
  return {{"check", finding.check},
          {"status", name_of(finding.health)},
          {"found", finding.found},
          {"cure", finding.cure}};
}

std::string hosts_of(const DoctorRow& row, const std::vector<std::string>& hosts) {
  std::set<std::string> names;
  for (const int rank : row.ranks) names.insert(hosts.at(static_cast<size_t>(rank)));
  std::string text;
  for (const auto& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}
}  // namespace

std::vector<DoctorRow> merge_findings(const std::vector<Findings>& of_ranks) {
  std::vector<std::string> order;
  for (const auto& findings : of_ranks) {
    for (const auto& finding : findings) {
      if (std::ranges::find(order, finding.check) == order.end()) order.push_back(finding.check);
    }
  }
  std::vector<DoctorRow> rows;
  for (const auto& check : order) {
    const size_t first = rows.size();
    for (size_t rank = 0; rank < of_ranks.size(); ++rank) {
      for (const auto& finding : of_ranks[rank]) {
        if (finding.check != check) continue;
        const auto known =
            std::find_if(rows.begin() + static_cast<long>(first), rows.end(),
                         [&](const DoctorRow& row) { return same(row.finding, finding); });
        if (known == rows.end()) {
          rows.push_back({.finding = finding, .ranks = {static_cast<int>(rank)}});
        } else {
          known->ranks.push_back(static_cast<int>(rank));
        }
      }
    }
    if (rows.size() - first > 1 && is_version(check)) {
      for (size_t row = first; row < rows.size(); ++row) {
        auto& finding = rows[row].finding;
        if (finding.health != Health::kOk) continue;
        finding.health = Health::kWarn;
        finding.cure = "hosts differ: load the same modules, or use the same container, everywhere";
      }
    }
  }
  return rows;
}

std::string findings_to_json(const Findings& findings) {
  Json list = Json::array();
  for (const auto& finding : findings) list.push_back(json_of(finding));
  return list.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Findings findings_from_json(const std::string& text) {
  Findings findings;
  for (const auto& entry : Json::parse(text)) {
    const std::string status = entry.at("status");
    findings.push_back({.check = entry.at("check"),
                        .health = status == "OK"     ? Health::kOk
                                  : status == "WARN" ? Health::kWarn
                                                     : Health::kFail,
                        .found = entry.at("found"),
                        .cure = entry.at("cure")});
  }
  return findings;
}

std::string doctor_table(const std::vector<DoctorRow>& rows,
                         const std::vector<std::string>& hosts) {
  size_t width = 0;
  for (const auto& row : rows) width = std::max(width, row.finding.check.size());
  std::string text;
  for (const auto& row : rows) {
    const Finding& finding = row.finding;
    const std::string status = name_of(finding.health);
    text += status + std::string(6 - status.size(), ' ') + finding.check +
            std::string(width + 2 - finding.check.size(), ' ') + finding.found;
    // Some checks are rank 0's alone.
    if (row.ranks.size() != hosts.size() && !(row.ranks.size() == 1 && row.ranks[0] == 0))
      text += "  [rank " + ranges(row.ranks) + ": " + hosts_of(row, hosts) + "]";
    text += "\n";
    if (!finding.cure.empty()) text += std::string(8 + width, ' ') + "-> " + finding.cure + "\n";
  }
  const auto count = [&](Health health) {
    return std::ranges::count(rows, health,
                              [](const DoctorRow& row) { return row.finding.health; });
  };
  text += std::to_string(hosts.size()) + (hosts.size() == 1 ? " rank" : " ranks") + " on " +
          std::to_string(std::set(hosts.begin(), hosts.end()).size()) +
          " host(s): " + std::to_string(count(Health::kOk)) + " OK, " +
          std::to_string(count(Health::kWarn)) + " WARN, " + std::to_string(count(Health::kFail)) +
          " FAIL\n";
  return text;
}

std::string doctor_json(const std::vector<DoctorRow>& rows, const std::vector<std::string>& hosts) {
  Json checks = Json::array();
  for (const auto& row : rows) {
    Json entry = json_of(row.finding);
    entry["ranks"] = row.ranks;
    entry["hosts"] = hosts_of(row, hosts);
    checks.push_back(std::move(entry));
  }
  const Json report = {
      {"status", name_of(worst(rows))}, {"hosts", hosts}, {"checks", std::move(checks)}};
  return report.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Health worst(const std::vector<DoctorRow>& rows) {
  Health health = Health::kOk;
  for (const auto& row : rows) health = std::max(health, row.finding.health);
  return health;
}
}  // namespace trireme
