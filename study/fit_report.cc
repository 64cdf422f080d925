#include "study/fit_report.h"

#include <cmath>

#include <nlohmann/json.hpp>

#include "core/formatted.h"

namespace trireme {
namespace {
using nlohmann::ordered_json;

constexpr double kPoorMiss = 0.03;

ordered_json number_or_null(double value) {
  return std::isfinite(value) ? ordered_json(value) : ordered_json(nullptr);
}

ordered_json interval_to_json(const std::optional<Interval>& interval) {
  if (!interval) return nullptr;
  return ordered_json::array({number_or_null(interval->low), number_or_null(interval->high)});
}

std::string percent(double share) { return formatted("%+.1f %%", 100.0 * share); }
}  // namespace

std::string format_rounded(double value) {
  if (!std::isfinite(value)) return value > 0.0 ? "unbounded" : "-unbounded";
  if (std::abs(value) < 1000.0) return formatted("%.4g", value);
  const double scale = std::pow(10.0, std::floor(std::log10(std::abs(value))) - 3.0);
  std::string digits = formatted("%.0f", std::round(value / scale) * scale);
  for (size_t at = digits.size(); at > 3 + (digits.front() == '-' ? 1U : 0U);) {
    at -= 3;
    digits.insert(at, ",");
  }
  return digits;
}

std::string with_interval(double value, const std::optional<Interval>& interval) {
  const bool is_known = interval && (std::isfinite(interval->low) || std::isfinite(interval->high));
  if (!is_known) return format_rounded(value);
  return format_rounded(value) + " (" + format_rounded(interval->low) + " to " +
         format_rounded(interval->high) + ")";
}

std::vector<std::string> fit_notes(const Points& points, const TradeoffFit& fit) {
  std::vector<std::string> notes;
  const double smallest = points.batches.front().batch;
  const double largest = points.batches.back().batch;
  if (fit.held_out) {
    const double miss = fit.held_out->miss();
    notes.push_back("Held out: fitted without batch " + format_rounded(fit.held_out->batch) +
                    ", the curve predicts " + format_rounded(fit.held_out->predicted) +
                    " samples there; measured are " + format_rounded(fit.held_out->measured) +
                    ": a miss of " + percent(miss) + "." +
                    (std::abs(miss) > kPoorMiss ? " That is poor." : "") +
                    " The curve is for the measured batches, " + format_rounded(smallest) + " to " +
                    format_rounded(largest) + ", only.");
  } else {
    notes.emplace_back(
        fit.identified == TradeoffFit::Identified::kYes
            ? "Two batches determine the curve exactly; nothing tells how good it is. Measure a "
              "third."
            : "Two batches do not tell whether samples follow the curve at all. Measure a third.");
  }
  if (fit.identified == TradeoffFit::Identified::kTooHigh) {
    notes.emplace_back(
        "Samples to target do not grow over these batches, so the noise scale is only known to be "
        "far above them; e_min is their mean. Measure larger batches.");
  } else if (fit.identified == TradeoffFit::Identified::kTooLow) {
    notes.emplace_back(
        "Samples to target grow as fast as the batch or faster, so the noise scale is only known "
        "to be far below these batches, and e_min is no estimate. Measure smaller batches, and see "
        "that the learning rate is tuned at each.");
  } else if (fit.curve.noise_scale < smallest || fit.curve.noise_scale > largest) {
    notes.push_back("The noise scale lies outside the measured batches (" +
                    format_rounded(smallest) + " to " + format_rounded(largest) +
                    "): it is an extrapolation.");
  }
  if (!fit.noise_scale_interval) {
    notes.emplace_back("No interval: it takes two runs at some batch, or three batches.");
  }
  if (points.num_without_value > 0) {
    notes.push_back(std::to_string(points.num_without_value) +
                    " runs without a value (target not reached?) are left out, which makes the "
                    "remaining ones look better than they are.");
  }
  return notes;
}

ordered_json fit_to_json(const Points& points, const TradeoffFit& fit) {
  ordered_json json;
  json["e_min"] = fit.curve.e_min;
  json["e_min_interval"] = interval_to_json(fit.e_min_interval);
  json["s_min"] = fit.curve.s_min();
  json["noise_scale"] = fit.curve.noise_scale;
  json["noise_scale_interval"] = interval_to_json(fit.noise_scale_interval);
  using Identified = TradeoffFit::Identified;
  json["identified"] = fit.identified == Identified::kYes       ? "yes"
                       : fit.identified == Identified::kTooHigh ? "too_high"
                                                                : "too_low";
  json["residual_max"] = fit.residual_max;
  json["held_out"] = nullptr;
  if (fit.held_out) {
    json["held_out"] = {{"batch", fit.held_out->batch},
                        {"predicted", fit.held_out->predicted},
                        {"measured", fit.held_out->measured},
                        {"miss", fit.held_out->miss()}};
  }
  json["num_runs"] = points.num_runs;
  json["num_without_value"] = points.num_without_value;
  json["batches"] = ordered_json::array();
  for (const auto& batch : points.batches) {
    const double mean = mean_of(batch.samples);
    const double fitted = fit.curve.samples_at(batch.batch);
    json["batches"].push_back({{"batch", batch.batch},
                               {"num_runs", batch.samples.size()},
                               {"samples", mean},
                               {"samples_deviation", standard_deviation_of(batch.samples)},
                               {"samples_fit", fitted},
                               {"residual", fitted / mean - 1.0},
                               {"steps", mean / batch.batch}});
  }
  json["notes"] = fit_notes(points, fit);
  return json;
}
}  // namespace trireme
