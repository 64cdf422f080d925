#include "dist/line_agreement.h"

#include <algorithm>
#include <sstream>
#include <vector>

#include "core/error.h"

namespace trireme {
namespace {
std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}
}  // namespace

void agree_on_lines(MpiEnvironment& mpi, const std::string& mine, const std::string& what,
                    const std::string& cure) {
  std::string first = mine;
  mpi.broadcast_string(first);
  mpi.run_on_all_ranks([&] {
    if (first == mine) return;
    const auto theirs = lines_of(first);
    const auto ours = lines_of(mine);
    const auto [there, here] = std::ranges::mismatch(theirs, ours);
    const std::string nothing = "nothing more";
    throw UsageError("the ranks' " + what + " differ: where rank 0 has " +
                     (there == theirs.end() ? nothing : *there) + ", rank " +
                     std::to_string(mpi.rank()) + " has " + (here == ours.end() ? nothing : *here) +
                     ". " + cure);
  });
}
}  // namespace trireme
