#pragma once
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "study/points.h"
#include "study/tradeoff_fit.h"

namespace trireme {

// What `study fit --json` prints (docs/study.md lists the members). What is not finite is null.
[[nodiscard]] nlohmann::ordered_json fit_to_json(const Points& points, const TradeoffFit& fit);

// What a reader must know before using the fit: a large held-out miss, a noise scale outside the
// measured batches, runs left out. One sentence or two each.
[[nodiscard]] std::vector<std::string> fit_notes(const Points& points, const TradeoffFit& fit);

// "2,244 (1,863 to 2,758)"; "unbounded" for an infinite end. Without interval, or with one that is
// infinite both ways: the value alone.
[[nodiscard]] std::string with_interval(double value, const std::optional<Interval>& interval);
// Three to four significant digits, thousands separated.
[[nodiscard]] std::string format_rounded(double value);
}  // namespace trireme
