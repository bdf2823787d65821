// The sampled depth prior on the device.
#pragma once

#include "common/launch.cuh"
#include "common/workspace.cuh"

namespace rirf {
namespace cuda {

// Writes the priors of the recipes that have the effects in `needed` into `prior`. Uses the
// workspace's map, blurred and gaussian parts; `prior` may be its map.
rirf_status sample_prior(const rirf_recipe *recipes, uint32_t needed, const rirf_map &prior,
                         const Workspace &workspace, void *stream);

}  // namespace cuda
}  // namespace rirf
