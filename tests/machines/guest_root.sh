#!/bin/bash
# Fills the directory $1 with a small Debian that boots fast without hardware acceleration: kernel, systemd, sshd,
# ext4, xfs and LVM, and no Python. What is particular to one machine (name, address, keys) is not in it.
set -euo pipefail
root=$1
packages=linux-image-cloud-amd64,systemd-sysv,dbus,udev,openssh-server,iproute2,e2fsprogs,xfsprogs,initramfs-tools,zstd,kmod,lvm2
debootstrap --variant=minbase --include="$packages" bookworm "$root" ${FARSHORE_DEBIAN_MIRROR:+"$FARSHORE_DEBIAN_MIRROR"}

# Every NIC asks by DHCP, except one whose MAC address a machine's own 10-*.network names.
cat > "$root/etc/systemd/network/50-dhcp.network" <<'END'
[Match]
Type=ether
[Network]
DHCP=ipv4
LinkLocalAddressing=no
IPv6AcceptRA=no
END
echo 'LABEL=farshore-root / ext4 rw,relatime 0 0' > "$root/etc/fstab"
mkdir -p "$root/boot/grub" "$root/data"
install -d -m 700 "$root/root/.ssh"
rm -f "$root"/etc/ssh/ssh_host_* "$root/etc/machine-id" "$root/etc/hostname"
printf 'HostKey /etc/ssh/ssh_host_ed25519_key\nPermitRootLogin prohibit-password\n' > "$root/etc/ssh/sshd_config.d/guest.conf"

# An initramfs with the three modules that the disk needs, and without udev: the kernel makes the device nodes.
printf 'MODULES=list\nCOMPRESS=zstd\n' > "$root/etc/initramfs-tools/conf.d/guest"
printf 'virtio_pci\nvirtio_blk\next4\n' > "$root/etc/initramfs-tools/modules"
for stage in init-top init-bottom; do
    mkdir -p "$root/etc/initramfs-tools/scripts/$stage"
    # shellcheck disable=SC2016
    printf '#!/bin/sh\n[ "$1" = prereqs ] || mkdir -p /run/udev\n' > "$root/etc/initramfs-tools/scripts/$stage/udev"
    chmod 755 "$root/etc/initramfs-tools/scripts/$stage/udev"
done
chroot "$root" update-initramfs -u

# Emulated, each process that starts costs a tenth of a second: what this guest does not need does not start.
for driver in kvm_amd kvm_intel ata_piix ata_generic serio_raw psmouse aesni_intel ghash_clmulni_intel \
    crct10dif_pclmul crc32_pclmul sha512_ssse3 sha256_ssse3 sha1_ssse3 qemu_fw_cfg floppy i2c_piix4; do
    echo "blacklist $driver"
done > "$root/etc/modprobe.d/guest.conf"
chroot "$root" systemctl enable systemd-networkd ssh
chroot "$root" systemctl mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
    e2scrub_reap.service fstrim.timer getty@tty1.service systemd-networkd-wait-online.service systemd-pstore.service \
    systemd-update-utmp.service systemd-update-utmp-runlevel.service systemd-timesyncd.service systemd-binfmt.service \
    systemd-machine-id-commit.service modprobe@drm.service modprobe@dm_mod.service modprobe@configfs.service \
    modprobe@fuse.service modprobe@loop.service modprobe@efi_pstore.service kmod-static-nodes.service \
    dev-hugepages.mount dev-mqueue.mount sys-fs-fuse-connections.mount sys-kernel-config.mount \
    systemd-network-generator.service systemd-modules-load.service systemd-firstboot.service systemd-sysusers.service \
    systemd-journal-flush.service systemd-journald-audit.socket systemd-ask-password-console.path \
    systemd-ask-password-wall.path proc-sys-fs-binfmt_misc.automount lvm2-monitor.service lvm2-lvmpolld.socket \
    dm-event.socket blk-availability.service
# sshd listens on every address, so it need not wait for the network.
sed -e '/^After=/d' -e '/^ExecStartPre/d' "$root/lib/systemd/system/ssh.service" > "$root/etc/systemd/system/ssh.service"

kernel=$(basename "$root"/boot/vmlinuz-*)
options='root=LABEL=farshore-root rootfstype=ext4 rw console=ttyS0 net.ifnames=0 quiet loglevel=3 systemd.show_status=0'
speed='fsck.mode=skip mitigations=off audit=0 cryptomgr.notests no_timer_check tsc=reliable'
cat > "$root/boot/grub/grub.cfg" <<END
set timeout=0
linux /boot/$kernel $options $speed
initrd /boot/initrd.img-${kernel#vmlinuz-}
boot
END
# A package drags Python in; the agent has to do without the machine's.
rm -rf "$root"/usr/bin/python3* "$root"/usr/lib/python3*
rm -rf "$root"/usr/share/{doc,man,locale}/* "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/*.log
