#include "launcher/slurm_script.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"

namespace trireme {
namespace {
using testing::HasSubstr;
using testing::Not;

TEST(SlurmScriptTest, HoldsWhatTheJobNeeds) {
  SlurmRequest request;
  request.job_name = "my run";
  request.num_nodes = 2;
  request.gpus_per_node = 8;
  request.time = "12:00:00";
  request.program = "/opt/my programs/trireme";
  request.arguments = {"train", "a.toml"};
  const std::string script = slurm_script(request);
  EXPECT_THAT(script, testing::StartsWith("#!/bin/bash\n#SBATCH --job-name=my-run\n"));
  for (const char* line :
       {"#SBATCH --nodes=2\n", "#SBATCH --ntasks=16\n", "#SBATCH --ntasks-per-node=8\n",
        "#SBATCH --gpus-per-node=8\n", "#SBATCH --time=12:00:00\n", "#SBATCH --requeue\n",
        "#SBATCH --signal=B:USR1@120\n", "#SBATCH --open-mode=append\n", "--mpi=pmix",
        "'/opt/my programs/trireme' train a.toml &\n", "-eq 75", "--gpu-bind=none",
        "SRUN_CPUS_PER_TASK"}) {
    EXPECT_THAT(script, HasSubstr(line));
  }
}

TEST(SlurmScriptTest, RefusesContradictions) {
  SlurmRequest request;
  EXPECT_THROW(static_cast<void>(slurm_script(request)), UsageError);  // How many ranks?
  request.num_nodes = 4;
  request.num_ranks = 2;
  EXPECT_THROW(static_cast<void>(slurm_script(request)), UsageError);
  request.num_ranks = 4;
  EXPECT_NO_THROW(static_cast<void>(slurm_script(request)));
  request.time = "soon";
  EXPECT_THROW(static_cast<void>(slurm_script(request)), UsageError);
  request.time = "10";
  request.partition = "a b";
  EXPECT_THROW(static_cast<void>(slurm_script(request)), UsageError);
}

SlurmRequest template_request(int nodes) {
  SlurmRequest request;
  request.source = SlurmRequest::Source::kScriptArguments;
  request.job_name = "trireme";
  request.num_nodes = nodes;
  request.gpus_per_node = 4;
  request.cpus_per_task = 8;
  request.time = "12:00:00";
  request.program = "trireme";
  return request;
}

// slurm/ holds what `launch --slurm` writes, for editing by hand. To write it anew after a change:
//   TRIREME_WRITE_TEMPLATES=1 build/tests/test_launcher --gtest_filter='*Templates*'
TEST(SlurmScriptTest, TemplatesAreWhatLaunchWrites) {
  std::vector<std::pair<std::string, SlurmRequest>> templates;
  templates.emplace_back("single_node", template_request(1));
  templates.emplace_back("multi_node", template_request(2));
  templates.emplace_back("container_apptainer", template_request(2));
  templates.back().second.container = "trireme.sif";
  templates.emplace_back("container_pyxis", template_request(2));
  templates.back().second.container = "registry.example#trireme";
  templates.emplace_back("array_study", template_request(1));
  templates.back().second.source = SlurmRequest::Source::kCommandFile;
  for (const auto& [name, request] : templates) {
    const std::filesystem::path file =
        std::filesystem::path(TRIREME_SOURCE_DIR) / "slurm" / (name + ".sbatch");
    if (std::getenv("TRIREME_WRITE_TEMPLATES") != nullptr)
      std::ofstream(file) << slurm_script(request);
    std::ostringstream text;
    text << std::ifstream(file).rdbuf();
    EXPECT_EQ(text.str(), slurm_script(request)) << file;
  }
}

TEST(SlurmScriptTest, MoreRanksThanGpusAreRefused) {
  SlurmRequest request = template_request(2);
  request.num_ranks = 9;
  EXPECT_THROW(static_cast<void>(slurm_script(request)), UsageError);
  request.num_ranks = 8;
  EXPECT_NO_THROW(static_cast<void>(slurm_script(request)));
}

TEST(SlurmScriptTest, AnArrayBringsItsCommands) {
  SlurmRequest request;
  request.source = SlurmRequest::Source::kCommands;
  request.starter = SlurmRequest::Starter::kProgram;
  request.num_ranks = 2;
  request.program = "/opt/trireme";
  request.run_dir = "my studies/runs";
  request.commands = {{"study", "a.toml", "--run", "b8"}, {"study", "a.toml", "--run", "b16"}};
  const std::string script = slurm_script(request);
  for (const char* text :
       {"#SBATCH --array=1-2\n", "#SBATCH --output=%x-%A_%a.log\n",
        "\nstudy a.toml --run b8\nstudy a.toml --run b16\nEND\n",
        "run_dir='my studies/runs'/${arguments[-1]}\n", "\n/opt/trireme \"${arguments[@]}\" &\n"}) {
    EXPECT_THAT(script, HasSubstr(text));
  }
}

TEST(SlurmScriptTest, ACpuJobHasNoGpuOptions) {
  SlurmRequest request = template_request(2);
  request.gpus_per_node = 0;
  request.num_ranks = 4;
  EXPECT_THAT(slurm_script(request), Not(HasSubstr("gpu")));
}
}  // namespace
}  // namespace trireme
