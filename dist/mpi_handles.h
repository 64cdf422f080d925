#pragma once
#include <source_location>

#include <mpi.h>

#include "core/handle.h"
#include "dist/buffer_view.h"
#include "dist/communicator.h"

// Internal to dist/: brings <mpi.h> along.
namespace trireme {

// Throws LostError with MPI's own text and the place unless `result` is MPI_SUCCESS.
void check_mpi(int result, std::source_location where = std::source_location::current());

struct CommDeleter {
  static MPI_Comm null() { return MPI_COMM_NULL; }
  static void destroy(MPI_Comm comm) noexcept;
};
using UniqueComm = UniqueHandle<MPI_Comm, CommDeleter>;

struct TypeDeleter {
  static MPI_Datatype null() { return MPI_DATATYPE_NULL; }
  static void destroy(MPI_Datatype type) noexcept { MPI_Type_free(&type); }
};
using UniqueType = UniqueHandle<MPI_Datatype, TypeDeleter>;

// A duplicate of `comm` whose errors are returned. Collective.
[[nodiscard]] UniqueComm duplicate(MPI_Comm comm);

// For transport: half types travel as 16-bit integers.
[[nodiscard]] MPI_Datatype mpi_type(ScalarType type) noexcept;
[[nodiscard]] MPI_Op mpi_op(ReduceOp op) noexcept;
// Throws UsageError for types that CPUs do not reduce here (the half types).
void check_reducible(ScalarType type);
}  // namespace trireme
