set -euf
export LC_ALL=C
tab=$(printf '\t')
attempts=${ENSIGN_AZURE_ROLE_ATTEMPTS:-30}
pause=${ENSIGN_AZURE_ROLE_PAUSE:-10}
roles=providers/Microsoft.Authorization/roleDefinitions
assignments=providers/Microsoft.Authorization/roleAssignments

say() { printf '%s\n' "$*"; }

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

lower() { printf '%s' "$1" | tr '[:upper:]' '[:lower:]'; }

# Sends a request to Azure Resource Manager: METHOD PATH [ARGUMENT...]. The response is in $answer, an error in $problem.
arm() {
  arm_method=$1
  arm_path=$2
  shift 2
  problem=
  if answer=$(az rest --only-show-errors --method "$arm_method" --url "$arm_path?api-version=2022-04-01" "$@" 2>"$errors" </dev/null); then
    return 0
  fi
  problem=$(cat "$errors")
  return 1
}

# Waits before another attempt, as long as there is one left.
wait_for_azure() {
  attempt=$((attempt + 1))
  [ "$attempt" -le "$attempts" ] || return 1
  if [ "$attempt" -eq 2 ]; then
    say "  not known everywhere in Azure yet; trying for up to $((attempts * pause)) s"
  fi
  sleep "$pause"
}

# Whether the list $1, one scope a line, has the scope $2.
has_scope() {
  has_wanted=$(lower "$2")
  for has_one in $1; do
    [ "$(lower "$has_one")" != "$has_wanted" ] || return 0
  done
  return 1
}

# Finds the role by its name, or else by its ID. Sets $guid, $found, and what the role has: $has_actions, $has_scopes.
find_role() {
  guid=$role_guid
  for scope in $assignable; do
    arm get "$scope/$roles" --uri-parameters "\$filter=$role_filter" \
      --query "value[?properties.type=='CustomRole'].name | [0]" --output tsv || fail "$problem"
    case $answer in
      *-*) guid=$answer && break ;;
    esac
  done
  found=
  has_actions=
  has_scopes=
  for scope in $assignable; do
    if arm get "$scope/$roles/$guid" --output tsv --query "[[
      join(' ', sort(properties.permissions[].actions[])),
      to_string(length(properties.permissions[].[notActions, dataActions, notDataActions][][])),
      join(' ', sort(properties.assignableScopes))]]"; then
      [ -n "$answer" ] || continue
      found=yes
      has_actions=$(printf '%s' "$answer" | cut -f1,2)
      has_scopes=$(printf '%s' "$answer" | cut -f3 | tr ' ' '\n')
      return
    fi
    case $problem in
      *RoleDefinitionDoesNotExist* | *"Not Found"* | *NotFound*) ;;
      *) fail "$problem" ;;
    esac
  done
}

# Creates the role, or updates it if it differs. $1: its assignable scopes, one a line.
put_role() {
  same=$found
  [ "$has_actions" = "$role_actions${tab}0" ] || same=
  json=
  for scope in $1; do
    json="$json${json:+,}\"$scope\""
    has_scope "$has_scopes" "$scope" || same=
  done
  for scope in $has_scopes; do
    has_scope "$1" "$scope" || same=
  done
  if [ -n "$same" ]; then
    say "role $role_name ($guid): unchanged"
    return
  fi
  attempt=1
  until arm put "${1%%"$newline"*}/$roles/$guid" --output none --body "$role_start$json$role_end"; do
    case $problem in
      *RoleDefinitionWithSameNameExists*)
        fail "another role of this tenant has the name $role_name: give this cluster its own with --cluster or --name, or run this again in a few minutes if the role is your own and new ($problem)" ;;
      *RoleDefinitionDoesNotExist* | *RoleAssignment*Exist*) wait_for_azure || fail "$problem" ;;
      *) fail "$problem" ;;
    esac
  done
  changed=yes
  if [ -n "$found" ]; then
    say "role $role_name ($guid): updated"
  else
    say "role $role_name ($guid): created"
  fi
  found=yes
  has_actions="$role_actions${tab}0"
  has_scopes=$1
}

# Lists where the principal has the role. Sets $existing, lines of an assignment's name, scope and condition.
list_assignments() {
  existing=
  for scope in $assignable $has_scopes; do
    case $(lower "$scope") in
      /subscriptions/*) printf '/subscriptions/%s\n' "$(printf '%s' "$scope" | cut -d/ -f3)" ;;
    esac
  done | tr '[:upper:]' '[:lower:]' | sort -u >"$subscriptions"
  while read -r subscription; do
    arm get "$subscription/$assignments" --uri-parameters "\$filter=principalId eq '$principal'" --output tsv \
      --query "value[?ends_with(properties.roleDefinitionId, '/$guid')].[name, properties.scope, not_null(properties.condition, '')]" ||
      fail "$problem"
    existing="$existing${existing:+$newline}$answer"
  done <"$subscriptions"
  existing=$(printf '%s\n' "$existing" | sort -u)
}

# Assigns the role. $1: the name of a new assignment. $2: its scope.
assign() {
  attempt=1
  while :; do
    name=$1
    verb=created
    while IFS=$tab read -r found_name found_scope found_condition; do
      [ "$(lower "$found_scope")" = "$(lower "$2")" ] || continue
      name=$found_name
      verb="condition updated"
      if [ "$found_condition" = "$condition" ]; then
        say "assignment in $2: unchanged"
        return
      fi
    done <<END
$existing
END
    subscription=$(printf '%s' "$2" | cut -d/ -f3)
    role_id="/subscriptions/$subscription/$roles/$guid"
    body="{\"properties\":{\"roleDefinitionId\":\"$role_id\",\"principalId\":\"$principal\",\"principalType\":\"ServicePrincipal\"$condition_json}}"
    if arm put "$2/$assignments/$name" --output none --body "$body"; then
      changed=yes
      say "assignment in $2: $verb"
      return
    fi
    case $problem in
      *PrincipalNotFound* | *RoleDefinitionDoesNotExist*) wait_for_azure || fail "$problem" ;;
      *RoleAssignmentExists*)
        # The list did not have it yet.
        wait_for_azure || fail "$problem"
        list_assignments ;;
      *) fail "$problem" ;;
    esac
  done
}

# Names the assignments that are not asked for any more, or removes them.
clean_up() {
  while IFS=$tab read -r found_name found_scope found_condition; do
    if [ -z "$found_name" ] || has_scope "$scopes" "$found_scope"; then
      continue
    fi
    if [ -z "$remove" ]; then
      say "assignment in $found_scope: not asked for any more, and kept; with --remove it is removed"
      continue
    fi
    arm delete "$found_scope/$assignments/$found_name" --output none || fail "$problem"
    changed=yes
    say "assignment in $found_scope: removed"
  done <<END
$existing
END
}

main() {
  case ${1-} in
    '' | --remove) remove=${1-} ;;
    *) fail "the only argument is --remove, not $1" ;;
  esac
  case $principal in
    *'<'*) fail "print this again with --principal-id, the object ID (principalId) of the controller's identity" ;;
  esac
  command -v az >/dev/null || fail "the Azure CLI, az, is not installed"
  errors=$(mktemp)
  subscriptions=$(mktemp)
  trap 'rm -f "$errors" "$subscriptions"' EXIT
  changed=
  find_role
  list_assignments
  # Where the role was assignable before it stays so until nothing is assigned there any more.
  kept=$assignable
  for scope in $has_scopes; do
    has_scope "$kept" "$scope" || kept="$kept$newline$scope"
  done
  put_role "$kept"
  while read -r name scope; do
    assign "$name" "$scope"
  done <<END
$wanted
END
  clean_up
  if [ -n "$remove" ] && [ "$kept" != "$assignable" ]; then
    put_role "$assignable"
  fi
  [ -n "$changed" ] || say "nothing had to be changed"
}

main "$@"
