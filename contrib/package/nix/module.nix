# A NixOS module: one larder daemon for a machine, started by its first connection.
#   imports = [ ./contrib/package/nix/module.nix ];
#   services.larder.enable = true;
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.larder;
  settings = (pkgs.formats.toml { }).generate "larder.toml" cfg.settings;
in
{
  options.services.larder = {
    enable = lib.mkEnableOption "larder, a caching registry for cargo and rustup";
    package = lib.mkOption {
      type = lib.types.package;
      default = pkgs.callPackage ./package.nix { };
      defaultText = "package.nix beside this module";
      description = "The package to run.";
    };
    listen = lib.mkOption {
      type = lib.types.str;
      default = "127.0.0.1:3263";
      description = "Address of the socket. For other machines, their names for this one belong to `allow-host`.";
    };
    settings = lib.mkOption {
      type = lib.types.attrs;
      default = { };
      example = {
        max-size = "20GB";
        allow-host = [ "builder.example" ];
      };
      description = "Keys of larder's settings file.";
    };
  };

  config = lib.mkIf cfg.enable {
    systemd.sockets.larder = {
      description = "Address of larder, a caching registry for cargo and rustup";
      wantedBy = [ "sockets.target" ];
      listenStreams = [ cfg.listen ];
    };
    systemd.services.larder = {
      description = "larder, a caching registry for cargo and rustup";
      requires = [ "larder.socket" ];
      after = [
        "larder.socket"
        "network.target"
      ];
      serviceConfig = {
        Type = "notify";
        ExecStart = "${lib.getExe cfg.package} serve --config ${settings} --store %C/larder";
        DynamicUser = true;
        CacheDirectory = "larder";
        CacheDirectoryMode = "0700";
        Restart = "on-failure";
        RestartSec = 2;
        RestartPreventExitStatus = 2;
        TimeoutStopSec = 30;
        LimitNOFILE = 65536;
        NoNewPrivileges = true;
        ProtectSystem = "strict";
        ProtectHome = true;
        PrivateTmp = true;
        PrivateDevices = true;
        CapabilityBoundingSet = "";
        RestrictAddressFamilies = "AF_INET AF_INET6 AF_UNIX";
        SystemCallFilter = "@system-service";
      };
    };
    environment.systemPackages = [ cfg.package ];
  };
}
