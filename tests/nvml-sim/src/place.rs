// SPDX-License-Identifier: MIT
//! The places that callers give for answers.

#![allow(unsafe_code)]

use std::ffi::c_char;

use nvml_wrapper_sys::bindings::*;

/// What a call comes to: nothing, or the number of an error.
pub type Outcome<T = ()> = Result<T, nvmlReturn_t>;

/// Puts `value` where the caller wants it.
///
/// # Errors
/// The caller gave no place.
pub fn put<T>(place: Option<&mut T>, value: T) -> Outcome {
    *place.ok_or(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT)? = value;
    Ok(())
}

/// Puts `text`, with a zero at its end, into a buffer of `length` bytes.
///
/// # Errors
/// The buffer is none or too small.
///
/// # Safety
/// `buffer` is null or has `length` bytes.
pub unsafe fn put_text(buffer: *mut c_char, length: u32, text: &str) -> Outcome {
    if buffer.is_null() {
        return Err(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT);
    }
    if text.len() >= length as usize {
        return Err(nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE);
    }
    // SAFETY: the buffer has room for the text and its zero, see above.
    unsafe {
        buffer.copy_from_nonoverlapping(text.as_ptr().cast(), text.len());
        buffer.add(text.len()).write(0);
    }
    Ok(())
}

/// Puts `values` into an array of `room` elements, and says in `count` how many they are.
///
/// # Errors
/// The array is too small; `count` says then how many there are.
///
/// # Safety
/// `array` is null or has `room` elements.
pub unsafe fn put_all<T: Copy>(array: *mut T, room: u32, count: Option<&mut u32>, values: &[T]) -> Outcome {
    put(count, values.len() as u32)?;
    if (room as usize) < values.len() {
        return Err(nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE);
    }
    if !values.is_empty() {
        if array.is_null() {
            return Err(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT);
        }
        // SAFETY: the array has room for the values, see above.
        unsafe { array.copy_from_nonoverlapping(values.as_ptr(), values.len()) };
    }
    Ok(())
}

/// `text` in a field of fixed length, cut to fit.
pub fn fixed<const N: usize>(text: &str) -> [c_char; N] {
    let mut field = [0; N];
    for (place, byte) in field[..N - 1].iter_mut().zip(text.bytes()) {
        *place = byte as c_char;
    }
    field
}

/// `NVML_FEATURE_ENABLED` or `NVML_FEATURE_DISABLED`.
pub fn feature(on: bool) -> nvmlEnableState_t {
    if on { nvmlEnableState_enum_NVML_FEATURE_ENABLED } else { nvmlEnableState_enum_NVML_FEATURE_DISABLED }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_to_fit_with_its_zero() {
        let mut buffer = [1 as c_char; 4];
        // SAFETY: the buffer has as many bytes as is said.
        let put =
            |buffer: &mut [c_char; 4], length, text| unsafe { put_text(buffer.as_mut_ptr(), length, text) };
        assert_eq!(put(&mut buffer, 3, "abc"), Err(nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE));
        assert_eq!(put(&mut buffer, 4, "abc"), Ok(()));
        assert_eq!(buffer, fixed::<4>("abc"));
    }
}
