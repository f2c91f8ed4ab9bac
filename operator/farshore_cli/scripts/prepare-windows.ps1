# Prepares a Windows machine for push installation of the Mobility service of Azure Site Recovery, which protects Windows
# machines (RecoveryVault with `engine: siteRecovery`; the native engine protects Linux). Run it in the machine, in an
# elevated PowerShell. It may be run again at any time. Works from Windows Server 2008 R2 SP1 on.
$ErrorActionPreference = 'Stop'

$Me = New-Object Security.Principal.WindowsPrincipal([Security.Principal.WindowsIdentity]::GetCurrent())
if (-not $Me.IsInRole([Security.Principal.WindowsBuiltInRole]::Administrator)) {
    throw 'Run this in an elevated PowerShell (Run as administrator)'
}

# A local administrator gets a filtered token over the network, with which nothing can be installed, unless this value
# is 1. Not needed (and not set) when the account that installs is one of the domain: then pass -DomainAccount.
$DomainAccount = $args -contains '-DomainAccount'
$Key = 'HKLM:\SOFTWARE\Microsoft\Windows\CurrentVersion\Policies\System'
if (-not $DomainAccount) {
    $Current = (Get-ItemProperty -Path $Key -Name LocalAccountTokenFilterPolicy -ErrorAction SilentlyContinue).LocalAccountTokenFilterPolicy
    if ($Current -ne 1) {
        Write-Output 'farshore: setting LocalAccountTokenFilterPolicy to 1'
        New-ItemProperty -Path $Key -Name LocalAccountTokenFilterPolicy -PropertyType DWord -Value 1 -Force | Out-Null
    }
}

# The Mobility service is copied over SMB and started over WMI. The groups are named by their resources, which are the
# same in every language: -28502 is "File and Printer Sharing", -34251 "Windows Management Instrumentation (WMI)".
# On computers of a domain a group policy may do this instead.
foreach ($Group in @('@FirewallAPI.dll,-28502', '@FirewallAPI.dll,-34251')) {
    Write-Output "farshore: allowing the firewall rules of group $Group"
    & netsh.exe advfirewall firewall set rule "group=$Group" new enable=yes | Out-Null
    if ($LASTEXITCODE -ne 0) {
        throw "netsh could not enable the firewall group $Group; allow File and Printer Sharing and WMI in wf.msc"
    }
}

# The services behind them.
foreach ($Name in @('LanmanServer', 'Winmgmt')) {
    $Service = Get-Service -Name $Name
    if ($Service.Status -ne 'Running') {
        Write-Output "farshore: starting the service $Name"
        Set-Service -Name $Name -StartupType Automatic
        Start-Service -Name $Name
    }
}

# The clock must agree with the process server's within five minutes.
$Time = Get-Service -Name W32Time -ErrorAction SilentlyContinue
if ($null -eq $Time -or $Time.Status -ne 'Running') {
    Write-Output 'farshore: note: the Windows Time service does not run; the clock must be right within five minutes'
}

$Addresses = Get-WmiObject Win32_NetworkAdapterConfiguration -Filter 'IPEnabled = True' |
    ForEach-Object { $_.IPAddress } | Where-Object { $_ -notmatch ':' }
Write-Output "farshore: ready. Private addresses of this machine: $($Addresses -join ', ')"
