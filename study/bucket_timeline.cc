#include "study/bucket_timeline.h"

#include <algorithm>

#include "trainer/reduce/gradient_buckets.h"

namespace trireme {

std::vector<BucketTime> plan_bucket_times(const NetworkCost& network, int64_t bucket_elements) {
  std::vector<size_t> order;
  std::vector<int64_t> num_elements;
  std::vector<double> done_macs;  // Of backward, when the tensor's gradient is there.
  double macs = 0.0;
  for (auto layer = network.layers.rbegin(); layer != network.layers.rend(); ++layer) {
    macs += layer->backward_macs();
    for (const int64_t elements : layer->parameters) {
      order.push_back(order.size());
      num_elements.push_back(elements);
      done_macs.push_back(macs);
    }
  }
  BucketOptions options;
  if (bucket_elements > 0) {
    options.bucket_elements = bucket_elements;
    options.first_bucket_elements = std::min(options.first_bucket_elements, bucket_elements);
  }
  std::vector<BucketTime> buckets;
  for (const auto& members : plan_buckets(order, num_elements, options)) {
    BucketTime bucket;
    for (const size_t index : members) {
      bucket.num_elements += num_elements[index];
      bucket.ready_share = std::max(bucket.ready_share, macs > 0.0 ? done_macs[index] / macs : 1.0);
    }
    buckets.push_back(bucket);
  }
  return buckets;
}
}  // namespace trireme
