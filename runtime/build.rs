//! Links the program so that it protects itself before anything else: `dhow_sys::exe`.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64") {
        println!("cargo:rustc-link-arg-bin=dhow-runtime=-Wl,-u,dhow_entry,-e,dhow_entry");
    }
}
