#include "dist/mpi_handles.h"

#include <array>
#include <string>

#include "core/error.h"
#include "dist/call_site.h"

namespace trireme {

void check_mpi(int result, std::source_location where) {
  if (result == MPI_SUCCESS) return;
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  MPI_Error_string(result, text.data(), &length);
  throw LostError(
      "MPI failed in " + call_site_text(where) + ": " + std::string(text.data(), length) +
      ". The connection between ranks was lost or MPI was set up wrongly; start the run "
      "again, it goes on from its newest checkpoint.");
}

void CommDeleter::destroy(MPI_Comm comm) noexcept {
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (finalized == 0) MPI_Comm_free(&comm);
}

UniqueComm duplicate(MPI_Comm comm) {
  MPI_Comm copy = MPI_COMM_NULL;
  check_mpi(MPI_Comm_dup(comm, &copy));
  UniqueComm owned(copy);
  check_mpi(MPI_Comm_set_errhandler(copy, MPI_ERRORS_RETURN));
  return owned;
}

MPI_Datatype mpi_type(ScalarType type) noexcept {
  switch (type) {
    case ScalarType::kFloat32:
      return MPI_FLOAT;
    case ScalarType::kFloat64:
      return MPI_DOUBLE;
    case ScalarType::kInt64:
      return MPI_INT64_T;
    case ScalarType::kBFloat16:
    case ScalarType::kFloat16:
      return MPI_UINT16_T;
    case ScalarType::kUInt8:
      return MPI_UINT8_T;
  }
  return MPI_DATATYPE_NULL;
}

MPI_Op mpi_op(ReduceOp op) noexcept {
  switch (op) {
    case ReduceOp::kSum:
      return MPI_SUM;
    case ReduceOp::kMax:
      return MPI_MAX;
    case ReduceOp::kMin:
      return MPI_MIN;
  }
  return MPI_OP_NULL;
}

void check_reducible(ScalarType type) {
  if (type != ScalarType::kBFloat16 && type != ScalarType::kFloat16) return;
  throw UsageError(
      "Ranks on CPUs reduce float32, float64, int64 and uint8, not the half types. Reduce in "
      "float32, "
      "or use the nccl backend on GPUs.");
}
}  // namespace trireme
