// llama-server's `samplers`: which stages an answer's sampling has. Internal to api/.
#pragma once

#include "api/field_reader.h"
#include "api/requests.h"

namespace trellis {

// Switches off what `samplers` leaves out, as there. An array of names, or a string with a letter
// for each. Stages run in llama.cpp's default order here: a list with another one is refused, and a
// name that llama.cpp does not know either. What can be listed and has no settings here (dry, xtc,
// ...; infill) does nothing.
void ReadSamplerList(FieldReader& reader, SamplingFields* out);

}  // namespace trellis
