//! Stands in for the unwinder of C in the static release build, where a panic aborts, and which has
//! no unwind tables (`dist/no-unwind-tables.ld`).
//!
//! Without tables, the unwinder finds no frame. With this one, the compiler sees that too, and
//! leaves out what the standard library has to print frames: 259 KiB, most of it readers for debug
//! information. The names are those of the Itanium C++ ABI for exception handling, and of the
//! extensions of GCC.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::process;

/// `_URC_END_OF_STACK`: there are no more frames.
const END_OF_STACK: c_int = 5;

/// Visits no frame.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Backtrace(_visit: *const c_void, _argument: *mut c_void) -> c_int {
    END_OF_STACK
}

/// Defines functions that only a visitor of frames or an exception would call.
macro_rules! never_called {
    ($($name:ident)*) => {
        $(
            #[unsafe(no_mangle)]
            extern "C" fn $name() {
                process::abort();
            }
        )*
    };
}

never_called! {
    _Unwind_FindEnclosingFunction
    _Unwind_GetCFA
    _Unwind_GetDataRelBase
    _Unwind_GetIP
    _Unwind_GetIPInfo
    _Unwind_GetLanguageSpecificData
    _Unwind_GetRegionStart
    _Unwind_GetTextRelBase
    _Unwind_Resume
    _Unwind_SetGR
    _Unwind_SetIP
}
