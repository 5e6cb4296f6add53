//! `tessera serve`: flags, environment and file to settings, and the server until a signal.

use anyhow::{Context, Result};
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use tessera_server::serve::stop_signal;
use tessera_server::server::Server;
use tessera_server::settings::{Sources, TABLE};
use tessera_server::{Settings, log};

/// The flags are the table of settings.
pub(crate) fn command() -> Command {
    let flags = TABLE.iter().map(|setting| {
        let default =
            setting.default.map_or_else(|| "required".to_owned(), |default| format!("default {default}"));
        let help = format!("{} [{default}; {}]", setting.help, setting.variable());
        let action = if setting.repeats { ArgAction::Append } else { ArgAction::Set };
        Arg::new(setting.key).long(setting.flag()).value_name(setting.value).action(action).help(help)
    });
    Command::new("serve")
        .about("Serve a folder of models over the Open Inference Protocol")
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .help("Settings as TOML, one key per flag below"),
        )
        .args(flags)
}

pub(crate) fn run(given: &ArgMatches) -> Result<ExitCode> {
    let settings = settings(given)?;
    log::init(settings.log_format, settings.log_level);
    let runtime = tessera_server::runtime::of_all_cores()?;
    let ended = runtime.block_on(async {
        let server = Server::start(settings).await?;
        let mut out = std::io::stdout().lock();
        out.write_all(server.announcement().as_bytes())
            .and_then(|()| out.flush())
            .context("cannot write to stdout")?;
        drop(out);
        anyhow::Ok(server.run(stop_signal(), stop_signal()).await)
    })?;
    if let Some(why) = ended.lost {
        anyhow::bail!("the device is lost: {why}");
    }
    Ok(if ended.cut == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn settings(given: &ArgMatches) -> Result<Settings> {
    let mut sources = Sources::new();
    if let Some(path) = given.get_one::<String>("config").map(PathBuf::from) {
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        sources.file(&path, &text)?;
    }
    sources.environment(
        std::env::vars_os().filter_map(|(key, value)| key.into_string().ok().zip(value.into_string().ok())),
    );
    for setting in TABLE {
        if let Some(values) = given.get_many::<String>(setting.key) {
            sources.flag(setting.key, values.cloned());
        }
    }
    Ok(sources.resolve()?)
}
