//! `tessera zoo`: real architectures as a model repository, see `tessera_bench::zoo`.

use crate::flags::{seed, seed_flag};
use crate::print::print;
use anyhow::Result;
use clap::{Arg, ArgMatches, Command, value_parser};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tessera_bench::zoo::{ARCHITECTURES, Sizes, find, write_tenants};

pub(crate) fn command() -> Command {
    let names: Vec<String> = ARCHITECTURES
        .iter()
        .map(|architecture| format!("  {:<16} {}", architecture.name, architecture.about))
        .collect();
    Command::new("zoo")
        .about("Write tenants of a real architecture as ONNX files, each with its own seeded weights")
        .arg(Arg::new("arch").value_name("ARCH").required(true).help("Which architecture, see below"))
        .arg(
            Arg::new("tenants")
                .long("tenants")
                .value_name("N")
                .default_value("1")
                .value_parser(value_parser!(u32).range(1..=10_000))
                .help("How many files, named ARCH-0.onnx and so on"),
        )
        .arg(
            Arg::new("out")
                .long("out")
                .value_name("DIR")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("Folder for them, made if need be; `tessera serve --model-repository DIR` serves it"),
        )
        .arg(seed_flag("Decides every weight; equal seeds give equal files"))
        .args(size_flags())
        .after_help(format!("Architectures:\n{}", names.join("\n")))
}

pub(crate) fn run(given: &ArgMatches) -> Result<ExitCode> {
    let name = given.get_one::<String>("arch").expect("clap requires it");
    let folder = given.get_one::<PathBuf>("out").expect("clap requires it");
    let tenants = given.get_one::<u32>("tenants").copied().unwrap_or(1) as usize;
    let model = find(name)?.model(&sizes(given))?;
    print(&format_args!(
        "{}: {} parameters, {:.1} MB a file\n",
        model.architecture.name,
        model.parameters(),
        model.file_bytes() as f64 / 1e6
    ))?;
    // Somebody who reads no further wants the files all the same.
    let mut written = |path: &Path| drop(print(&format_args!("{}\n", path.display())));
    write_tenants(&model, tenants, seed(given), folder, &mut written)?;
    Ok(ExitCode::SUCCESS)
}

/// The flags that choose an architecture's sizes.
pub(crate) fn size_flags() -> [Arg; 3] {
    let number =
        |name: &'static str| Arg::new(name).long(name).value_name("N").value_parser(value_parser!(usize));
    [
        Arg::new("width")
            .long("width")
            .value_name("X")
            .default_value("1")
            .value_parser(value_parser!(f32))
            .help("Factor of every layer's width"),
        number("image-size").help("Side of the image, of networks that take one [usually 224]"),
        number("tokens")
            .help("Tokens of a text or steps of a series, of networks that take one [usually 128 and 32]"),
    ]
}

/// What [`size_flags`] say.
pub(crate) fn sizes(given: &ArgMatches) -> Sizes {
    Sizes {
        width: given.get_one::<f32>("width").copied().unwrap_or(1.0),
        image_size: given.get_one::<usize>("image-size").copied(),
        tokens: given.get_one::<usize>("tokens").copied(),
    }
}
