// Python arrays as views of the C interface: anything with __dlpack__ (NumPy, torch, CuPy, JAX) or
// __cuda_array_interface__ (PyCUDA, Numba), never copied. Errors name the argument.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <initializer_list>
#include <string>

#include "rirf_kernels.h"

namespace rirf::binding {

namespace nb = nanobind;

// An array's memory; `owner` keeps it alive. Strides in elements.
struct Array {
    nb::object owner;
    void *data = nullptr;
    int dims = 0;
    int64_t shape[5] = {}, stride[5] = {};
    nb::dlpack::dtype dtype = {};
    int device_type = 0, device_id = 0;
};

inline std::string shape_text(const Array &array) {
    std::string text = "(";
    for (int i = 0; i < array.dims; ++i) {
        text += (i ? ", " : "") + std::to_string(array.shape[i]);
    }
    return text + (array.dims == 1 ? ",)" : ")");
}

inline std::string dtype_text(nb::dlpack::dtype dtype) {
    static const char *const kinds[] = {"int", "uint", "float", "handle", "bfloat", "complex", "bool"};
    const char *kind = dtype.code < 7 ? kinds[dtype.code] : "unknown";
    return kind + std::to_string(dtype.bits) + (dtype.lanes == 1 ? "" : " with lanes");
}

inline nb::builtin_exception not_an_array(const char *name, nb::handle value) {
    const std::string got = nb::cast<std::string>(nb::type_name(value.type()));
    return nb::type_error((std::string(name) + ": got " + got +
                           ", which shares no memory; expected an array (NumPy, or anything with "
                           "__dlpack__ or __cuda_array_interface__) in the machine's byte order, "
                           "its strides whole elements")
                              .c_str());
}

template <typename NdArray>
Array from_dlpack(const NdArray &array) {
    Array found;
    found.owner = nb::cast(array);
    found.data = const_cast<void *>(static_cast<const void *>(array.data()));
    found.dims = static_cast<int>(array.ndim());
    for (int i = 0; i < found.dims && i < 5; ++i) {
        found.shape[i] = static_cast<int64_t>(array.shape(static_cast<size_t>(i)));
        found.stride[i] = array.stride(static_cast<size_t>(i));
    }
    found.dtype = array.dtype();
    found.device_type = array.device_type();
    found.device_id = array.device_id();
    return found;
}

// The protocol of PyCUDA and Numba: a dictionary with pointer, shape, strides in bytes, type string.
inline Array from_cuda_interface(const char *name, nb::handle value, bool written) {
    const nb::dict table = nb::cast<nb::dict>(value.attr("__cuda_array_interface__"));
    const nb::tuple memory = nb::cast<nb::tuple>(table["data"]);
    const nb::tuple shape = nb::cast<nb::tuple>(table["shape"]);
    const std::string type = nb::cast<std::string>(table["typestr"]);
    Array found;
    found.owner = nb::borrow<nb::object>(value);
    found.data = reinterpret_cast<void *>(nb::cast<uintptr_t>(memory[0]));
    found.dims = static_cast<int>(shape.size());
#if defined(RIRF_HOST_RUN)
    found.device_type = nb::device::cpu::value;
#else
    found.device_type = nb::device::cuda::value;
#endif
    if (written && nb::cast<bool>(memory[1])) {
        throw nb::value_error((std::string(name) + ": is read-only, expected writable").c_str());
    }
    if (type.size() < 3 || (type[0] != '<' && type[0] != '|')) {
        throw nb::type_error((std::string(name) + ": got the type " + type +
                              ", expected numbers in little-endian order")
                                 .c_str());
    }
    const uint8_t code = type[1] == 'f' ? 2 : (type[1] == 'u' ? 1 : (type[1] == 'i' ? 0 : 3));
    const int bytes = std::stoi(type.substr(2));
    found.dtype = {code, static_cast<uint8_t>(8 * bytes), 1};
    int64_t dense = 1;
    for (int i = found.dims - 1; i >= 0; --i) {
        if (i >= 5) continue;
        found.shape[i] = nb::cast<int64_t>(shape[static_cast<size_t>(i)]);
        found.stride[i] = dense;
        dense *= found.shape[i];
    }
    if (table.contains("strides") && !table["strides"].is_none()) {
        const nb::tuple strides = nb::cast<nb::tuple>(table["strides"]);
        for (int i = 0; i < found.dims && i < 5; ++i) {
            found.stride[i] = nb::cast<int64_t>(strides[static_cast<size_t>(i)]) / bytes;
        }
    }
    return found;
}

// The array behind an argument, on the wanted device; throws a named error otherwise.
inline Array array_on(const char *name, nb::handle value, int device_type, bool written) {
    Array found;
    // On CUDA the older protocol comes first where both are there: asked for DLPack, a library may
    // make streams wait for each other, which a stream under capture does not allow.
    const bool interface = nb::hasattr(value, "__cuda_array_interface__");
    if (interface && (device_type != nb::device::cpu::value || !nb::hasattr(value, "__dlpack__"))) {
        found = from_cuda_interface(name, value, written);
    } else if (written) {
        nb::ndarray<> array;
        if (!nb::try_cast(value, array, false)) {
            nb::ndarray<nb::ro> readable;
            if (nb::try_cast(value, readable, false)) {
                throw nb::value_error(
                    (std::string(name) + ": is read-only, expected writable memory").c_str());
            }
            throw not_an_array(name, value);
        }
        found = from_dlpack(array);
    } else {
        nb::ndarray<nb::ro> array;
        if (!nb::try_cast(value, array, false)) throw not_an_array(name, value);
        found = from_dlpack(array);
    }
    // The exporting object outlives the call, because the caller holds it.
    found.owner = nb::borrow<nb::object>(value);
    if (found.device_type != device_type) {
        const bool cpu = device_type == nb::device::cpu::value;
        throw nb::value_error((std::string(name) + (cpu ? ": is not in CPU memory, expected all "
                                                          "arrays there"
                                                        : ": is not in CUDA memory, expected all "
                                                          "arrays on one GPU"))
                                  .c_str());
    }
    if (found.dims > 5) {
        throw nb::value_error((std::string(name) + ": has " + std::to_string(found.dims) +
                               " axes, expected at most 4")
                                  .c_str());
    }
    return found;
}

[[noreturn]] inline void bad_type(const char *name, const Array &array, const char *expected) {
    const std::string got = dtype_text(array.dtype);
    throw nb::type_error((std::string(name) + ": got " + got + ", expected " + expected).c_str());
}

// The same with the wanted type.
inline Array array_of(const char *name, nb::handle value, nb::dlpack::dtype dtype, int device_type,
                      bool written) {
    const Array found = array_on(name, value, device_type, written);
    if (found.dtype != dtype) bad_type(name, found, dtype_text(dtype).c_str());
    return found;
}

[[noreturn]] inline void bad_shape(const char *name, const Array &array, const char *expected) {
    throw nb::value_error((std::string(name) + ": got the shape " + shape_text(array) +
                           ", expected " + expected)
                              .c_str());
}

// Arguments of one call: makes views and keeps the arrays alive meanwhile.
class Arguments {
public:
    explicit Arguments(int device_type) : device_type_(device_type) {}

    rirf_image image(const char *name, nb::handle value, bool written) {
        const Array a = array_of(name, value, nb::dtype<float>(), device_type_, written);
        if ((a.dims != 3 && a.dims != 4) || a.shape[a.dims - 1] != 3) {
            bad_shape(name, a,
                      "(H, W, 3) or (N, H, W, 3); a batch (N, 3, H, W) goes in as its view with "
                      "the channels last");
        }
        const int at = a.dims - 3;
        rirf_image view = {};
        view.data = static_cast<float *>(a.data);
        view.batch = at ? a.shape[0] : 1;
        view.stride_batch = at ? a.stride[0] : 0;
        view.height = a.shape[at];
        view.width = a.shape[at + 1];
        view.stride_row = a.stride[at];
        view.stride_column = a.stride[at + 1];
        view.stride_channel = a.stride[at + 2];
        return view;
    }

    rirf_map map(const char *name, nb::handle value, bool written) {
        const Array a = array_of(name, value, nb::dtype<float>(), device_type_, written);
        if (a.dims != 2 && a.dims != 3) bad_shape(name, a, "(H, W) or (N, H, W)");
        const int at = a.dims - 2;
        rirf_map view = {};
        view.data = static_cast<float *>(a.data);
        view.batch = at ? a.shape[0] : 1;
        view.stride_batch = at ? a.stride[0] : 0;
        view.height = a.shape[at];
        view.width = a.shape[at + 1];
        view.stride_row = a.stride[at];
        view.stride_column = a.stride[at + 1];
        return view;
    }

    rirf_frame frame(const char *name, nb::handle value, bool written) {
        const Array a = array_of(name, value, nb::dtype<uint8_t>(), device_type_, written);
        if (a.dims != 3 || a.shape[2] != 3) bad_shape(name, a, "(H, W, 3)");
        rirf_frame view = {};
        view.data = static_cast<uint8_t *>(a.data);
        view.height = a.shape[0];
        view.width = a.shape[1];
        view.stride_row = a.stride[0];
        view.stride_column = a.stride[1];
        view.stride_channel = a.stride[2];
        return view;
    }

    // `half`: whether float16 is offered.
    rirf_planes planes(const char *name, nb::handle value, bool written, bool half = true) {
        const Array a = array_on(name, value, device_type_, written);
        const bool is_half = a.dtype == nb::dlpack::dtype{2, 16, 1};
        if (a.dtype != nb::dtype<float>() && !(half && is_half)) {
            bad_type(name, a, half ? "float32 or float16" : "float32");
        }
        const int at = a.dims - 3;
        if ((at != 0 && at != 1) || a.shape[at] != 3 || (at == 1 && a.shape[0] != 1)) {
            bad_shape(name, a, "(3, H, W) or (1, 3, H, W)");
        }
        rirf_planes view = {};
        view.data = a.data;
        view.type = is_half ? RIRF_FLOAT16 : RIRF_FLOAT32;
        view.height = a.shape[at + 1];
        view.width = a.shape[at + 2];
        view.stride_plane = a.stride[at];
        view.stride_row = a.stride[at + 1];
        view.stride_column = a.stride[at + 2];
        return view;
    }

    // A contiguous run of numbers; `count` < 0 accepts any length. `tail`: its last axes.
    template <typename T>
    T *run(const char *name, nb::handle value, int64_t count, bool written,
           int64_t *found = nullptr, std::initializer_list<int64_t> tail = {}) {
        const Array a = array_of(name, value, nb::dtype<T>(), device_type_, written);
        int64_t total = 1, dense = 1;
        bool contiguous = true;
        for (int i = a.dims - 1; i >= 0; --i) {
            contiguous = contiguous && (a.shape[i] <= 1 || a.stride[i] == dense);
            dense *= a.shape[i];
            total *= a.shape[i];
        }
        if (!contiguous) {
            throw nb::value_error(
                (std::string(name) + ": is not contiguous, expected C order").c_str());
        }
        bool fits = count < 0 || total == count;
        int axis = a.dims - static_cast<int>(tail.size());
        fits = fits && axis >= 0;
        for (const int64_t size : tail) fits = fits && a.shape[axis++] == size;
        if (!fits) {
            std::string expected = std::to_string(count) + " numbers in all";
            if (tail.size() != 0) expected += ", the last axes";
            for (const int64_t size : tail) expected += " " + std::to_string(size);
            bad_shape(name, a, expected.c_str());
        }
        if (reinterpret_cast<uintptr_t>(a.data) % alignof(T) != 0) {
            throw nb::value_error((std::string(name) + ": lies at an odd address, expected one that "
                                                       "is a multiple of its type's size")
                                      .c_str());
        }
        if (found != nullptr) *found = total;
        return static_cast<T *>(a.data);
    }

    // Point-spread functions, 31 x 31 for each image.
    float *psf(const char *name, nb::handle value, int64_t batch, bool written) {
        return run<float>(name, value, batch * RIRF_PSF_AREA, written, nullptr,
                          {RIRF_PSF_SIZE, RIRF_PSF_SIZE});
    }

    // Structures handed over as bytes: recipes and truths.
    template <typename T>
    T *structures(const char *name, nb::handle value, int64_t count, bool written,
                  int64_t *found = nullptr) {
        int64_t bytes = 0;
        uint8_t *data = run<uint8_t>(name, value, -1, written, &bytes);
        const auto size = static_cast<int64_t>(sizeof(T));
        if (bytes % size != 0 || (count >= 0 && bytes / size != count)) {
            const std::string wanted = count >= 0 ? std::to_string(count) : "whole entries";
            throw nb::value_error((std::string(name) + ": got " + std::to_string(bytes) +
                                   " bytes, expected " + wanted + " of " + std::to_string(size) +
                                   " bytes, one for each image")
                                      .c_str());
        }
        if (reinterpret_cast<uintptr_t>(data) % alignof(T) != 0) {
            throw nb::value_error(
                (std::string(name) + ": lies at an odd address, expected a multiple of 8").c_str());
        }
        if (found != nullptr) *found = bytes / size;
        return reinterpret_cast<T *>(data);
    }

    // The images of a dictionary that are to receive the frame after a stage.
    void stages(const nb::dict &wanted, rirf_record *record) {
        const struct {
            const char *key, *name;
            rirf_image *view;
        } slots[] = {{"fog", "stages['fog']", &record->fog},
                     {"shake", "stages['shake']", &record->shake},
                     {"rain", "stages['rain']", &record->rain},
                     {"noise", "stages['noise']", &record->noise}};
        size_t known = 0;
        for (const auto &slot : slots) {
            if (!wanted.contains(slot.key)) continue;
            ++known;
            *slot.view = image(slot.name, wanted[slot.key], true);
        }
        if (known != wanted.size()) {
            throw nb::value_error("stages: got an unknown key, expected fog, shake, rain or noise");
        }
    }

private:
    int device_type_;
};

// Turns a status into the exception that fits it.
inline void raise(rirf_status status) {
    if (status == RIRF_OK) return;
    const char *text = rirf_last_error();
    switch (status) {
        case RIRF_NO_MEMORY:
            PyErr_SetString(PyExc_MemoryError, text);
            break;
        case RIRF_CUDA_FAILED:
            PyErr_SetString(PyExc_RuntimeError, text);
            break;
        default:
            PyErr_SetString(PyExc_ValueError, text);
    }
    throw nb::python_error();
}

}  // namespace rirf::binding
