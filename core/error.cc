#include "core/error.h"

#include <algorithm>
#include <string>
#include <vector>

namespace trireme {

void check(bool condition, std::string_view what, std::source_location where) {
  if (condition) return;
  throw InternalError(
      "internal error: " + std::string(what) + " (" + where.file_name() + ":" +
      std::to_string(where.line()) +
      "). This is a bug of trireme; please report it with the command that led here.");
}

int edit_distance(std::string_view a, std::string_view b) {
  std::vector<int> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = static_cast<int>(j);
  for (size_t i = 1; i <= a.size(); ++i) {
    int diagonal = row[0];
    row[0] = static_cast<int>(i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const int above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row.back();
}
}  // namespace trireme
