#include "trainer/step_message.h"

#include "trainer/optim/exact_sum.h"
#include "trainer/reduce/gradient_reducer.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
// After three numbers a piece: digits of two norms, stop requests, two halves of the gradient's
// checksum; then, exchanged later, two halves of the parameters' one.
constexpr int64_t kBounded = kNumDigits;
constexpr int64_t kStop = int64_t{2} * kNumDigits;
constexpr int64_t kGradientChecksum = kStop + 1;
constexpr int64_t kTail = kGradientChecksum + 2;
constexpr int64_t kHalf = int64_t{1} << 32;

// Sums of halves over ranks may exceed 32 bits; what does carries over, modulo 2^64.
uint64_t join(double low, double high) {
  return static_cast<uint64_t>(low) + (static_cast<uint64_t>(high) << 32);
}
}  // namespace

StepMessage::StepMessage(Communicator& comm, const std::string& device, int64_t num_pieces)
    : comm_(comm), num_pieces_(num_pieces) {
  const int64_t size = 3 * num_pieces + kTail + 2;
  memory_ = comm.allocate(size, ScalarType::kFloat64);
  values_ = torch::from_blob(memory_->view().data, {size},
                             torch::dtype(torch::kDouble).device(torch::Device(device)));
  parameter_checksum_ = part(size - 2, 2);
}

at::Tensor StepMessage::part(int64_t first, int64_t count) const {
  return values_.narrow(0, first, count);
}

void StepMessage::begin() { values_.zero_(); }

at::Tensor StepMessage::piece_loss(int64_t piece) const { return values_.select(0, piece); }
at::Tensor StepMessage::piece_squares(int64_t piece) const {
  return values_.select(0, num_pieces_ + piece);
}
at::Tensor StepMessage::piece_prior_loss(int64_t piece) const {
  return values_.select(0, 2 * num_pieces_ + piece);
}
at::Tensor StepMessage::digits() const { return part(3 * num_pieces_, kNumDigits); }
at::Tensor StepMessage::bounded_digits() const {
  return part(3 * num_pieces_ + kBounded, kNumDigits);
}
void StepMessage::request_stop() { part(3 * num_pieces_ + kStop, 1).fill_(1.0); }

void StepMessage::add_halves(int64_t place, const at::Tensor& checksum) {
  values_.select(0, place).copy_(checksum.bitwise_and(kHalf - 1));
  values_.select(0, place + 1).copy_(checksum.bitwise_right_shift(32).bitwise_and(kHalf - 1));
}

void StepMessage::add_gradient_checksum(const at::Tensor& checksum) {
  add_halves(3 * num_pieces_ + kGradientChecksum, checksum);
}
void StepMessage::add_parameter_checksum(const at::Tensor& checksum) {
  add_halves(3 * num_pieces_ + kTail, checksum);
}

void StepMessage::exchange() {
  comm_.all_reduce(view_of(part(0, 3 * num_pieces_ + kTail)), ReduceOp::kSum)->wait();
}
void StepMessage::exchange_parameter_checksum() {
  comm_.all_reduce(view_of(parameter_checksum_), ReduceOp::kSum)->wait();
}

at::Tensor StepMessage::squared_norm() const { return value_of_digits(digits()); }
at::Tensor StepMessage::bounded_squared_norm() const { return value_of_digits(bounded_digits()); }
at::Tensor StepMessage::loss_sum() const { return part(0, num_pieces_).sum(); }

void StepMessage::copy_to_host(HostCopy& copy, const at::Tensor& loss_scale) const {
  copy.start(torch::cat({values_, squared_norm().reshape({1}), bounded_squared_norm().reshape({1}),
                         loss_scale.to(torch::kDouble).reshape({1})}));
}

StepMessage::Content StepMessage::read(HostCopy& copy, const std::function<void()>& poll) const {
  const at::Tensor& host = copy.wait(poll);
  const double* values = host.const_data_ptr<double>();
  Content content;
  content.piece_losses.assign(values, values + num_pieces_);
  content.piece_squares.assign(values + num_pieces_, values + 2 * num_pieces_);
  content.piece_prior_losses.assign(values + 2 * num_pieces_, values + 3 * num_pieces_);
  const double* rest = values + 3 * num_pieces_;
  content.stop = rest[kStop] > 0.0;
  content.gradient_checksum = join(rest[kGradientChecksum], rest[kGradientChecksum + 1]);
  content.parameter_checksum = join(rest[kTail], rest[kTail + 1]);
  content.squared_norm = rest[kTail + 2];
  content.bounded_squared_norm = rest[kTail + 3];
  content.loss_scale = rest[kTail + 4];
  return content;
}
}  // namespace trireme
