#include "trainer/model_agreement.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/mpi/world.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
using test::world;
using ::testing::AllOf;
using ::testing::HasSubstr;

NamedParameters three_parameters() {
  return {{"a", torch::ones({4})}, {"b", torch::ones({2, 3})}, {"c", torch::ones({5})}};
}

// What a rank is told, of which the last one is different; "" where nothing is wrong.
template <class Agree>
std::string complaint(const Agree& agree) {
  try {
    agree(world().rank() == world().world_size() - 1);
    return "";
  } catch (const UsageError& error) {
    return error.what();
  } catch (const PeerFailedError&) {
    return "a peer failed";
  }
}

TEST(ModelAgreementTest, EqualModelsAndPlansPass) {
  const NamedParameters parameters = three_parameters();
  agree_on_model(world(), parameters);
  agree_on_buckets(world(), parameters, {{2}, {1, 0}});
}

TEST(ModelAgreementTest, AnotherBucketPlanIsRefusedOnAllRanksAndNamed) {
  if (world().world_size() == 1) GTEST_SKIP() << "one rank agrees with itself";
  const std::string text = complaint([](bool is_last) {
    agree_on_buckets(world(), three_parameters(),
                     is_last ? BucketPlan{{2, 1}, {0}} : BucketPlan{{2}, {1, 0}});
  });
  const std::string last = std::to_string(world().world_size() - 1);
  if (world().rank() == world().world_size() - 1) {
    EXPECT_THAT(text, AllOf(HasSubstr("gradient buckets"), HasSubstr("rank 0 has 'b' in bucket 1"),
                            HasSubstr("rank " + last + " has 'b' in bucket 0")));
  } else {
    EXPECT_EQ(text, "a peer failed");
  }
}

TEST(ModelAgreementTest, AnotherShapeIsRefusedOnAllRanksAndNamed) {
  if (world().world_size() == 1) GTEST_SKIP() << "one rank agrees with itself";
  const std::string text = complaint([](bool is_last) {
    NamedParameters parameters = three_parameters();
    if (is_last) parameters[1].second = torch::ones({3, 2});
    agree_on_model(world(), parameters);
  });
  if (world().rank() == world().world_size() - 1) {
    EXPECT_THAT(text, AllOf(HasSubstr("'b' of shape (2, 3)"), HasSubstr("'b' of shape (3, 2)")));
  } else {
    EXPECT_EQ(text, "a peer failed");
  }
}
}  // namespace
}  // namespace trireme
